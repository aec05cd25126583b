#!/usr/bin/env bash
# The first ten minutes of a newcomer, from a bare machine: install, run, an adapter of one's own, a device of one's own,
# a sweep that is interrupted and resumed, a report, serving, training, and a mistake or two.
#   bash tests/newcomer/ten_minutes.sh [FOLDER]     FOLDER: an empty one to work in; default: a temporary one
set -euo pipefail
checkout=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d)}
cd "$folder"
export COLUMNS=${COLUMNS:-110}

say() { printf '\n\n===== %s\n' "$1"; }
try() { # a command as a newcomer types it, and what comes back
    printf '\n$ %s\n' "$*"
    "$@"
}
wrong() { # a mistake: one sentence on standard error and exit status 2
    printf '\n$ %s\n' "$*"
    local status=0
    "$@" 2>mistake.txt || status=$?
    cat mistake.txt
    [ "$status" = 2 ] && [ "$(wc -l <mistake.txt)" = 1 ] || { echo "expected status 2 and one line, found $status" && exit 1; }
}

say "install"
try python3 -m venv .venv
try .venv/bin/pip install -q "$checkout[parquet]"
export PATH="$folder/.venv/bin:$PATH"

say "a first look"
try graphsim --help
try graphsim run llama-3.1-8b --hardware h100-sxm --batch 8
try graphsim lora llama-3.1-8b --hardware h100-sxm --batch 8 --lora rank=16,targets=attn+ffn

say "an adapter of one's own"
mkdir -p adapter
cat >adapter/adapter_config.json <<'JSON'
{"peft_type": "LORA", "r": 32, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj", "o_proj"], "task_type": "CAUSAL_LM"}
JSON
try graphsim lora llama-3.1-8b --hardware h100-sxm --lora adapter

say "a device of one's own"
sed -e "s/^title: .*/title: My card/" -e "s/value: 864 GB\/s/value: 1.2 TB\/s/" "$checkout/hardware/l40s.yaml" >my-card.yaml
try graphsim run llama-3.1-8b --hardware my-card.yaml --batch 8

say "mistakes"
wrong graphsim run lama-3.1-8b --hardware h100-sxm
wrong graphsim run llama-3.1-8b --hardware h100-sxm --tp 3
wrong graphsim lora llama-3.1-8b --hardware h100-sxm --lora rank=16,targets=qq_proj
wrong graphsim run llama-3.1-70b --hardware nowhere.yaml

say "a sweep, interrupted and resumed"
asked=(llama-3.1-8b --hardware l40s h100-sxm --batch 1-64 --input 512,1024,2048,4096 --output 1:512:16 --rank 8,16,32,64 --strategy base,dynamic,merge)
try timeout --preserve-status -s INT 3 graphsim sweep "${asked[@]}" --out table.parquet || echo "(interrupted, status $?)"
try graphsim sweep "${asked[@]}" --out table.parquet --resume
try graphsim best llama-3.1-8b --hardware l40s h100-sxm --goal cost_per_token --tpot 30ms --price l40s=1.8,h100-sxm=2.5 --batch 1,8,64

say "a report, and a page to explore"
try graphsim run llama-3.1-8b --hardware h100-sxm --batch 8 --lora rank=16 --html report.html
try graphsim explore llama-3.1-8b --hardware h100-sxm --lora rank=16 --out explore.html
try ls -l report.html explore.html

say "serving over time"
try graphsim serve llama-3.1-8b --hardware l40s --rate 2 --requests 200 --adapters 20 --popularity zipf:1.2 --lora rank=16,max_loras=8

say "fine-tuning"
try graphsim train llama-3.1-8b --hardware l40s --method qlora --seq-len 4096
try graphsim train llama-3.1-8b --hardware h100-sxm --method lora --recompute full --seq-len 4096
echo
echo "all of it in $SECONDS s"
