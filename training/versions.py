"""Code version of each job: raised when the same inputs and configuration would give another result or checkpoint.

Free of torch, so that the assets, which ask whether there is anything to train, see the same versions as the jobs.
"""

ITEM_ENCODER = "2"
SEQUENCE_ENCODER = "7"
BASE_DECODER = "2"
VLLM_BATCH = "1"
EFFICIENCY = "2"
REASONING_BIAS = "5"
SUPERVISED_DECODER = "8"
PERSONALISED_DECODER = "7"
PERSONALISED_ANSWERS = "4"
