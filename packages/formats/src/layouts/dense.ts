import { type DenseMatrix, type Format, isQuantized, LowbitError } from '@lowbit/core'
import { asFloat32, asUint16, expectTensor, rawTensor } from './raw.ts'

export const DENSE_TYPES: Readonly<Record<string, DenseMatrix['type']>> = {
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
}

/** A weight as transformers stores it: [rows, columns] in f32, f16 or bf16. */
export const dense: Format = {
  kind: 'format',
  name: 'dense',
  summary: 'plain weights in f32, f16 or bf16, as transformers stores them',
  engines: ['transformers', 'vLLM', 'llama.cpp (converter)', 'MLX'],
  detect: (config) => config.quantization_config === undefined,
  tensorsOf: (has) => (has('weight') ? ['weight'] : undefined),
  read(module, tensors) {
    const name = `${module}.weight`
    const dtype = tensors.get('weight')?.dtype ?? 'F32'
    const type = DENSE_TYPES[dtype]
    if (!type) {
      throw new LowbitError('bad-tensor', `is ${dtype}; a dense weight is F32, F16 or BF16`, {
        tensor: name,
      })
    }
    const tensor = expectTensor(module, tensors, 'weight', dtype, [-1, -1])
    const [rows, columns] = tensor.shape
    return { rows, columns, type, values: type === 'f32' ? asFloat32(tensor) : asUint16(tensor) }
  },
  refuses: (matrix) =>
    isQuantized(matrix)
      ? 'it is quantized; decode it to f32, f16 or bf16 first (convert --to dense does)'
      : undefined,
  write(module, matrix) {
    if (isQuantized(matrix)) {
      throw new LowbitError('not-storable', 'dense can not store a quantized matrix', {
        tensor: module,
      })
    }
    const { rows, columns, type, values } = matrix
    return new Map([['weight', rawTensor(type.toUpperCase(), [rows, columns], values)]])
  },
  describe: () => ({}),
  config: () => ({}),
}
