"""Files as people have them for the trainers that are read, written for these tests."""

from __future__ import annotations

from typing import Any

AXOLOTL = """
base_model: meta-llama/Llama-3.1-8B
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_modules_to_save: [embed_tokens, lm_head]
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
bf16: auto
tf32: false
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
flash_attention: true
warmup_ratio: 0.1
saves_per_epoch: 1
datasets:
  - path: ./conversations.jsonl
    type: chat_template
val_set_size: 0.02
output_dir: ./outputs/qlora-8b
wandb_project:
special_tokens:
  pad_token: <|finetune_right_pad_id|>
"""

LLAMA_FACTORY = """
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_target: q_proj,v_proj
additional_target: embed_tokens
dataset: our_own_sft
template: qwen
cutoff_len: 8192
packing: true
output_dir: saves/qwen-7b/lora
overwrite_output_dir: true
plot_loss: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
bf16: true
save_steps: 200
flash_attn: fa2
enable_liger_kernel: true
deepspeed: examples/deepspeed/ds_z3_offload_config.json
"""

TORCHTUNE = """
output_dir: /tmp/llama-3_1-8b-qlora
model:
  _component_: torchtune.models.llama3_1.qlora_llama3_1_8b
  lora_attn_modules: [q_proj, v_proj, output_proj]
  apply_lora_to_mlp: True
  apply_lora_to_output: False
  lora_rank: 8
  lora_alpha: 16
  lora_dropout: 0.0
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: /tmp/tokenizer.model
  max_seq_len: 4096
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: /tmp/llama
dataset:
  _component_: torchtune.datasets.alpaca_cleaned_dataset
  packed: True
seed: null
shuffle: True
batch_size: 2
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  lr: 3e-4
loss:
  _component_: torchtune.modules.loss.LinearCrossEntropyLoss
epochs: 2
max_steps_per_epoch: 100
gradient_accumulation_steps: 8
clip_grad_norm: 1.0
compile: True
device: cuda
dtype: bf16
enable_activation_checkpointing: True
enable_activation_offloading: True
"""

TRL = """
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: our-org/our-chats
learning_rate: 2.0e-4
num_train_epochs: 1
packing: true
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: all-linear
load_in_4bit: true
max_length: 2048
output_dir: qwen-sft
"""

UNSLOTH: dict[str, Any] = {
    "model": {
        "model_name": "unsloth/Meta-Llama-3.1-8B-bnb-4bit", "max_seq_length": 2048, "dtype": None, "load_in_4bit": True,
    },
    "peft": {
        "r": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "lora_alpha": 16, "lora_dropout": 0,
        "bias": "none", "use_gradient_checkpointing": "unsloth", "random_state": 3407, "use_rslora": False,
    },
    "training": {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "warmup_steps": 5, "max_steps": 60,
        "learning_rate": 2e-4, "optim": "adamw_8bit", "seed": 3407, "output_dir": "outputs",
    },
}  # fmt: skip

TRAINING_ARGUMENTS: dict[str, Any] = {
    "output_dir": "out", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "bf16": True,
    "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "optim": "adamw_torch_fused", "max_steps": 1000, "learning_rate": 1e-4, "max_grad_norm": 0.3, "save_steps": 250,
    "lr_scheduler_type": "constant", "report_to": ["none"], "max_length": 1024,
}  # fmt: skip

LORA: dict[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "mistralai/Mistral-7B-v0.1", "r": 16,
    "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "use_dora": True, "bias": "none",
}  # fmt: skip

ACCELERATE = """
compute_environment: LOCAL_MACHINE
debug: false
distributed_type: FSDP
downcast_bf16: 'no'
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_backward_prefetch: BACKWARD_PRE
  fsdp_offload_params: false
  fsdp_sharding_strategy: FULL_SHARD
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_use_orig_params: true
machine_rank: 0
main_training_function: main
mixed_precision: bf16
num_machines: 1
num_processes: 8
same_network: true
use_cpu: false
"""

DEEPSPEED: dict[str, Any] = {
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}, "overlap_comm": True,
        "reduce_bucket_size": 5e8, "contiguous_gradients": True,
    },
    "gradient_accumulation_steps": "auto", "gradient_clipping": 1.0, "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto", "steps_per_print": 2000,
}  # fmt: skip
