"""How much work subscriptions may have at once, and for how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WakeLimits:
    """Bounds of the wakes of one process.

    A receiver that has failed waits for its turn apart from the others, so that those that answer never wait for those
    that do not.
    """

    #: Requests to one target, a scheme with a host and a port, at the same time.
    deliveries_per_target: int = 16
    #: Requests at the same time to receivers that have answered, and to those that have failed.
    deliveries_at_once: int = 512
    retries_at_once: int = 128
    #: How long a receiver may take to answer, if the lease is not shorter.
    answer_timeout_s: float = 60.0
    #: Subscriptions that are looked at at the same time.
    looks_at_once: int = 64
    #: Subscriptions of which one look after the next is due.
    due_per_look: int = 256
    #: Names and keys of one page, when all are looked at.
    names_per_page: int = 1_000
    #: Names of which a pattern is looked for before other tasks run.
    names_at_once: int = 100
    #: The longest pause between two looks at what is due.
    look_interval_s: float = 30.0
    #: The shortest pause between two looks at what is due.
    look_pause_s: float = 0.02
    #: The pause after the first failure of a look, which doubles with each further one, and the longest.
    retry_s: float = 1.0
    retry_s_max: float = 60.0
    #: The pause between two looks at all subscriptions, which find what an unforeseen error has left.
    sweep_interval_s: float = 600.0
    #: How often a change is computed again because another one came first.
    tries_max: int = 32


WAKE_LIMITS = WakeLimits()
