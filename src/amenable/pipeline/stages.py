"""The table of stages: what a worker can run. Importing it needs torch."""

from amenable.pipeline.align import align
from amenable.pipeline.compare import compare
from amenable.pipeline.finetune import finetune
from amenable.pipeline.prepare import prepare
from amenable.pipeline.pretrain import pretrain
from amenable.pipeline.reward import reward
from amenable.pipeline.sample import sample
from amenable.pipeline.stage import Stage

STAGES: dict[str, Stage] = {
    "prepare": prepare,
    "pretrain": pretrain,
    "finetune": finetune,
    "sample": sample,
    "align": align,
    "reward": reward,
    "compare": compare,
}
