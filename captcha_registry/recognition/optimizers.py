"""What a network learns with: Adam, AdamW or Muon, with linear warm-up and cosine decay."""

from captcha_registry.recognition.frameworks import keras, ops
from captcha_registry.recognition.layers import STEM
from captcha_registry.recognition.recipe import Recipe


class ConvolutionMuon(keras.optimizers.Muon):
    """Muon for the kernels of convolutions but that of the stem, AdamW for all else.

    Keras' own is for matrices. A kernel `(height, width, in, out)` is one of `(height * width * in, out)`, as Muon's author
    has it (https://kellerjordan.github.io/posts/muon/); steps are as large as AdamW's (https://arxiv.org/abs/2502.16982).
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4 or STEM in variable.path  # noqa: PLR2004 - the axes of a kernel

    def zeropower_via_newtonschulz5(self, x: keras.KerasTensor, steps: int) -> keras.KerasTensor:
        """Make the kernel's singular values equal, and it as large as a step of AdamW.

        Keras multiplies the matrix in each step of its iteration. Here only products of its shorter side's size are made: of its
        Gram matrix, and of the factors that the matrix is to be multiplied with.
        """
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        matrix = matrix / (ops.norm(matrix) + 1e-7)
        is_tall = matrix.shape[0] > matrix.shape[1]
        gram = ops.transpose(matrix) @ matrix if is_tall else matrix @ ops.transpose(matrix)
        product = identity = ops.eye(gram.shape[0])
        for _ in range(steps):
            factor = self.muon_a * identity + self.muon_b * gram + self.muon_c * gram @ gram
            product, gram = factor @ product, factor @ gram @ factor
        matrix = matrix @ product if is_tall else product @ matrix
        return ops.reshape(super().lr_adjust(matrix), x.shape)

    def lr_adjust(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Leave the step as it is: its size depends on the matrix, which is a kernel again."""
        return x


def build_optimizer(recipe: Recipe, peak_rate: float, num_steps: int) -> keras.Optimizer:
    """Build the optimizer of a phase of `num_steps` steps; AdamW (https://arxiv.org/abs/1711.05101) without decay is Adam."""
    num_warmup = int(num_steps * recipe.warmup)
    rate = (
        peak_rate
        if recipe.final_rate == 1 and not num_warmup
        else keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if num_warmup else peak_rate,
            warmup_target=peak_rate if num_warmup else None,
            warmup_steps=num_warmup,
            decay_steps=max(1, num_steps - num_warmup),
            alpha=recipe.final_rate,
        )
    )
    decay = recipe.weight_decay
    if recipe.optimizer == "muon":
        optimizer = ConvolutionMuon(rate, adam_beta_2=recipe.beta_2, weight_decay=decay, adam_weight_decay=decay)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay, beta_2=recipe.beta_2, amsgrad=recipe.amsgrad)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer
