"""TensorFlow, imported without its start-up lines: whoever needs it takes it from here."""

from captcha_registry.dataset.start_up_lines import leave_out_start_up_lines

with leave_out_start_up_lines():
    import tensorflow as tf

    # It looks for GPUs once, and tells what it finds; now, and not in the first operation.
    tf.config.list_physical_devices()

__all__ = ["tf"]
