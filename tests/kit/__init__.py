# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the behaviour suites are made of: real images, a real QEMU, a client of the bus, the daemon itself."""
