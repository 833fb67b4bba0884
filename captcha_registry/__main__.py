"""`python -m captcha_registry` is the command `captcha-registry`."""

from captcha_registry.cli import main

main()
