// excerpt: --list-devices
