"""What a kernel costs: fitted forms per operator family on top of the physics of the device."""
