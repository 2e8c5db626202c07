"""One file an engine; each registers itself by being defined."""

from .base import Engine, Event, Job, OnEvent, Slot, attempt

__all__ = ["Engine", "Event", "Job", "OnEvent", "Slot", "attempt"]
