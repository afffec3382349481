"""What Tidegate brings to dom0 of Qubes OS: moving qubes behind it and back, and telling how it is.

Everything goes through the qvm-* tools that dom0 has anyway; nothing here listens, and nothing from a
qube is believed or printed unescaped.
"""

FIREWALL = "sys-tidegate"
"""The name that `tidegate-setup` and the Salt formula give the firewall."""
