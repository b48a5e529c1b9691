"""De-identification: protections, the attackers that adapt to them, and what diagnosis loses."""
