import {
  type DenseMatrix,
  type Format,
  isQuantized,
  LowbitError,
  loadNumbers,
  type NumberType,
  type RawTensor,
} from '@lowbit/core'
import { describeFormat } from './format.ts'

const TYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const

function typeOf(raw: RawTensor, tensor: string): DenseMatrix['type'] {
  const found = Object.entries(TYPES).find(([, dtype]) => dtype === raw.dtype)
  if (!found) throw new LowbitError('bad-tensor', `${raw.dtype} is no type of weights`, { tensor })
  return found[0] as DenseMatrix['type']
}

/** Dense matrices only. */
const plain: Format = {
  kind: 'format',
  name: 'plain',
  summary: 'for this test',
  engines: [],
  detect: (config) => !('quantization_config' in config),
  tensorsOf: (has) => (has('weight') ? ['weight'] : undefined),
  refuses: (matrix) => (isQuantized(matrix) ? 'stores dense matrices only' : undefined),
  read(module, tensors) {
    const tensor = `${module}.weight`
    const raw = tensors.get('weight')
    if (!raw) throw new LowbitError('bad-tensor', 'is missing', { tensor })
    const [rows, columns] = raw.shape
    const type: NumberType = typeOf(raw, tensor)
    try {
      const { values } = loadNumbers(type, raw.bytes, rows * columns)
      return { rows, columns, type: 'f32', values }
    } catch (cause) {
      throw new LowbitError('bad-tensor', (cause as Error).message, { tensor, cause })
    }
  },
  write(module, matrix) {
    if (isQuantized(matrix)) {
      throw new LowbitError('unsupported', 'stores dense matrices only', { tensor: module })
    }
    const { rows, columns, type, values } = matrix
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    return new Map([['weight', { dtype: TYPES[type], shape: [rows, columns], bytes }]])
  },
  describe: () => ({}),
  config: () => ({}),
}

describeFormat(plain)
