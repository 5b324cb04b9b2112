"""coremltools' palettes, as tooling/bench compares them: palettes.py MODEL_DIR. Prints a line of JSON for each measurement
with its CPU seconds. Needs coremltools 9, torch and safetensors; one thread by OMP_NUM_THREADS."""
import json, logging, os, sys, time, warnings
logging.disable(logging.ERROR); warnings.filterwarnings('ignore')
import numpy as np
import torch
torch.set_num_threads(1)
from safetensors.torch import load_file
from coremltools._deps import _kmeans1d
from coremltools.optimize.torch.palettization import (
    PostTrainingPalettizer, PostTrainingPalettizerConfig, SKMPalettizer, SKMPalettizerConfig)

weights = {name[:-7]: tensor.float() for name, tensor in load_file(os.path.join(sys.argv[1], 'model.safetensors')).items()
           if name.endswith('_proj.weight')}


def report(what, work):
    start = time.process_time(); work()
    print(json.dumps({'what': what, 'cpu': time.process_time() - start}), flush=True)


def model(names):
    holder = torch.nn.Module()
    for i, name in enumerate(names):
        rows, columns = weights[name].shape
        linear = torch.nn.Linear(columns, rows, bias=False); linear.weight.data = weights[name].clone()
        holder.add_module(f'w{i}', linear)
    return holder, [f'w{i}' for i in range(len(names))]


def exact():
    values, inverse, counts = np.unique(one, return_inverse=True, return_counts=True)
    codes, centers = _kmeans1d.cluster(values, 16, weights=counts)
    return np.array(centers), np.array(codes)[inverse]


one = weights['model.layers.15.mlp.down_proj'].numpy().reshape(-1)
exact()
for _ in range(3): report('exact', exact)

grouped = {'granularity': 'per_grouped_channel', 'group_size': 16, 'channel_axis': 0}
for what, config in (('4 bits', {'n_bits': 4, 'granularity': 'per_tensor'}), ('3 bits', {'n_bits': 3, **grouped})):
    module, names = model(list(weights))
    settings = PostTrainingPalettizerConfig.from_dict({'module_name_configs': {name: config for name in names}})
    report(what, lambda: PostTrainingPalettizer(module, settings).compress(inplace=True))

# Sensitive k-means of one block of thirty, on random gradients, so that it ends today.
block = [name for name in weights if name.startswith('model.layers.15.')]
module, names = model(block)
torch.manual_seed(0); path = os.path.join(sys.argv[2], 'sensitivity.pt')
torch.save({f'{n}.weight': torch.rand_like(module.get_submodule(n).weight) ** 4 for n in names}, path)
settings = SKMPalettizerConfig.from_dict({'module_name_configs': {name: {'n_bits': 3, **grouped} for name in names}})
report('sensitive, a block', lambda: SKMPalettizer(module, settings).compress(sensitivity_path=path, inplace=True))
