"""A stand-in for AssemblyAI's API, for tests, demonstrations and load.

It answers as the service does, fetches the audio for real and hears who speaks
when; the words are its own. It bills nothing, but counts what would be billed.
"""

from audiohook.simulator.assemblyai.account import (
    Account,
    AudioCount,
    Job,
    Limits,
    Pace,
    Statistics,
    Status,
)
from audiohook.simulator.assemblyai.faults import Endpoint, Fault, Faults, JobFault
from audiohook.simulator.assemblyai.parameters import Policy
from audiohook.simulator.assemblyai.server import DEFAULT_KEY, StandIn

__all__ = [
    "DEFAULT_KEY",
    "Account",
    "AudioCount",
    "Endpoint",
    "Fault",
    "Faults",
    "Job",
    "JobFault",
    "Limits",
    "Pace",
    "Policy",
    "StandIn",
    "Statistics",
    "Status",
]
