"""Maximum likelihood: the mean negative log-probability of the target tokens."""

# Shapes: R = scored tokens.

from torch import Tensor

from amenable.training.losses.output import LossOutput, Tally


def likelihood_loss(log_probs_R: Tensor, *, tokens_in_step: int) -> LossOutput:
    """Cross entropy in nats per token, over the tokens of the whole optimizer step."""
    loss_R = -log_probs_R
    return LossOutput(
        total=loss_R.sum() / tokens_in_step,
        tallies={"loss": Tally(loss_R.detach().sum(), len(loss_R))},
    )
