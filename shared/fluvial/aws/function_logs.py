"""Logs of a Lambda function: the package's own log lines, from the standard library's loggers, in Powertools' JSON."""

import logging

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers

from fluvial.metrics.log_events import LOG_EVENTS


def function_logger(service: str) -> Logger:
    """A function's logger; the loggers of `fluvial.*` format lines as it does, with the request's correlation id."""
    logger = Logger(service=service)
    package = logging.getLogger("fluvial")
    copy_config_to_registered_loggers(source_logger=logger, include={package.name})
    package.addHandler(LOG_EVENTS)
    package.propagate = False  # Lambda's own handler, of the root logger, would print each line again
    return logger
