"""DNS as packets tell it: bytes become messages, messages become lookups."""
