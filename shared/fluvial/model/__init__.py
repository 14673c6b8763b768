"""The stream as data: heads, commands, commits, and pure functions over them. No I/O, no HTTP."""
