"""Servers under load: queues, adapters, caches and routers around the kernels."""
