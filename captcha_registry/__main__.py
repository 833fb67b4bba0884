"""The command `captcha-registry`, which is `python -m captcha_registry`, too."""

from captcha_registry.stopping import heed_signals

# Before the other imports, which take a tenth of a second.
heed_signals()

from captcha_registry.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
