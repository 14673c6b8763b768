"""SnapStart: what a function must do anew when it starts from a snapshot of another start.

Environments that start from one snapshot would draw the same pseudorandom numbers, and so all wait the same time before
they try again. Ids and secrets come from the operating system, which gives each environment its own.
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html
"""

import random
from importlib import import_module


def reseed_after_restore() -> None:
    """Have Lambda seed the pseudorandom numbers of this process whenever it is restored; elsewhere do nothing.

    The hooks are a part of Lambda's runtime: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """
    try:
        hooks = import_module("snapshot_restore_py")
    except ImportError:
        return
    hooks.register_after_restore(random.seed)
