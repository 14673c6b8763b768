"""What a release is made with: its checks, its build, and the tests on every Python."""
