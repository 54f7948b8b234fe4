"""What goes wrong, made to happen: each test brings a fault about and looks at what is left (docs/reliability.md)."""
