"""Processes that tests start."""

import subprocess


def stop_process(process: subprocess.Popen[bytes] | subprocess.Popen[str], timeout_s: float) -> None:
    """Ask a process to end, and kill it if it has not done so in time; it has ended afterwards."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
