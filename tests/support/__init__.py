"""What tests share: clocks, builders, stores to test and servers to test against."""
