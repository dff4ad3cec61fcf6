"""The command ``audiohook``: a module for each kind of user."""

from audiohook.cli import (
    audit,
    erase,
    notify,
    operate,
    service,
    simulate,
    support,
)
from audiohook.cli.app import app, main

__all__ = [
    "app",
    "audit",
    "erase",
    "main",
    "notify",
    "operate",
    "service",
    "simulate",
    "support",
]
