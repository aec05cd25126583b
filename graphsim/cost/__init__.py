"""The time of a kernel: fitted forms per operator family, based on the physics of the device."""
