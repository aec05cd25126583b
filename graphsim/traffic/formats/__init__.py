"""Recorded traffic: files of traces and benchmark clients, identified by their columns or keys."""

from graphsim.traffic.formats.read import read_trace
from graphsim.traffic.formats.trace import Trace

__all__ = ["Trace", "read_trace"]
