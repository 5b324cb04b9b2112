/**
 * The native layout: any QuantizedMatrix goes in and comes out equal. A module has one U8 tensor `lowbit`
 * with a JSON description, and one tensor for each array in it, named by its path
 * (`stages_0_codes`, `stages_0_scale_values`); the description refers to them by name. Tables that
 * several matrices share are stored once, as `lowbit_shared.NAME_tables`.
 */

import {
  type Format,
  isQuantized,
  LowbitError,
  loadNumbers,
  type Numbers,
  type NumberType,
  type PackedCodes,
  packedBytes,
  type QuantizedMatrix,
  type RawTensor,
  type StoredModule,
  storeNumbers,
  tensorName,
  validateMatrix,
} from '@lowbit/core'
import { description } from './lowbit-schema.ts'
import { asUint32, expectTensor, rawTensor } from './raw.ts'

const DESCRIPTION = 'lowbit'
const VERSION = 1
const SHARED = 'lowbit_shared'

/** safetensors' names of number types; u1 … u7 are packed into U8. */
const DTYPES: Partial<Record<NumberType, string>> = {
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
  f8_e4m3: 'F8_E4M3',
  f8_e5m2: 'F8_E5M2',
  f8_e8m0: 'F8_E8M0',
  i8: 'I8',
}

const numbersDtype = (type: NumberType): string => DTYPES[type] ?? 'U8'

export const lowbit: Format = {
  kind: 'format',
  name: 'lowbit',
  summary: 'the native layout: self-describing, any method, lossless',
  engines: ['lowbit'],
  detect: (config) => quantMethod(config) === 'lowbit',
  tensorsOf: (has) => (has(DESCRIPTION) ? [DESCRIPTION] : undefined),
  refersTo: (tensors) => referredTensors(tensors.get(DESCRIPTION)),
  sharedModule: SHARED,
  read(module, tensors) {
    const raw = expectTensor(module, tensors, DESCRIPTION, 'U8', [-1])
    const tensor = `${module}.${DESCRIPTION}`
    let json: unknown
    try {
      json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(raw.bytes))
    } catch (cause) {
      throw new LowbitError('bad-tensor', 'the description is not JSON', { tensor, cause })
    }
    const parsed = description.safeParse(json)
    if (!parsed.success) {
      const [issue] = parsed.error.issues
      throw new LowbitError(
        'bad-tensor',
        `the description is not valid: ${issue.path.join('.')}: ${issue.message}`,
        { tensor },
      )
    }
    const matrix = restore(parsed.data.matrix, module, tensors) as QuantizedMatrix
    validateMatrix(matrix, module)
    return matrix
  },
  refuses: (matrix) => (isQuantized(matrix) ? undefined : 'it is dense; it is stored as it is'),
  write(module, matrix) {
    if (!isQuantized(matrix)) {
      throw new LowbitError('not-storable', 'lowbit stores quantized matrices', { tensor: module })
    }
    const tensors = new Map<string, RawTensor>()
    const structure = detach(matrix, [], tensors, module)
    const json = new TextEncoder().encode(JSON.stringify({ version: VERSION, matrix: structure }))
    return new Map([[DESCRIPTION, rawTensor('U8', [json.length], json)], ...tensors])
  },
  describe: () => ({}),
  config: () => ({ quantization_config: { quant_method: 'lowbit', version: VERSION } }),
}

/** Every tensor that a description refers to, so that a reader knows what to fetch. */
function referredTensors(raw: RawTensor | undefined): string[] {
  if (!raw) return []
  const names: string[] = []
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return
    if ('$' in value && typeof value.$ === 'string') names.push(value.$)
    for (const inner of Object.values(value)) walk(inner)
  }
  try {
    walk(JSON.parse(new TextDecoder().decode(raw.bytes)))
  } catch {
    // `read` says what is wrong with it.
  }
  return names
}

function quantMethod(config: Readonly<Record<string, unknown>>): unknown {
  const settings = config.quantization_config
  return typeof settings === 'object' && settings !== null && 'quant_method' in settings
    ? settings.quant_method
    : undefined
}

const isNumbers = (value: object): value is Numbers => 'type' in value && 'values' in value
const isCodes = (value: object): value is PackedCodes =>
  'bits' in value && 'count' in value && 'data' in value

/** Puts arrays into tensors and leaves `{ $: name, … }` in their place. */
function detach(
  value: unknown,
  path: readonly string[],
  tensors: Map<string, RawTensor>,
  module: string,
): unknown {
  if (typeof value !== 'object' || value === null) return value
  const name = path.join('_')
  const put = (dtype: string, count: number, bytes: Uint8Array): void => {
    tensors.set(name, { dtype, shape: [count], bytes })
  }
  if (value instanceof Uint32Array) {
    put('U32', value.length, new Uint8Array(value.slice().buffer))
    return { $: name, as: 'u32' }
  }
  if (value instanceof Uint8Array) {
    put('U8', value.length, value)
    return { $: name, as: 'u8' }
  }
  if (Array.isArray(value))
    return value.map((x, i) => detach(x, [...path, String(i)], tensors, module))
  if (isCodes(value)) {
    const bytes = value.data.subarray(0, packedBytes(value.count, value.bits))
    put('U8', bytes.length, bytes)
    return { $: name, as: 'codes', bits: value.bits, count: value.count }
  }
  if (isNumbers(value) && value.values instanceof Float32Array) {
    const bytes = storeNumbers(value)
    const dtype = numbersDtype(value.type)
    put(dtype, dtype === 'U8' ? bytes.length : value.values.length, bytes)
    return { $: name, as: 'numbers', type: value.type, count: value.values.length }
  }
  const shared = 'shared' in value && typeof value.shared === 'string' ? value.shared : undefined
  if (shared !== undefined && !/^[A-Za-z0-9_]{1,100}$/.test(shared)) {
    throw new LowbitError(
      'not-storable',
      `a shared table can't be named ${JSON.stringify(shared)}: letters, digits and _ are possible`,
      { tensor: module },
    )
  }
  const inside = shared === undefined ? path : [`/${SHARED}.${shared}`]
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .map(([key, inner]) => [key, detach(inner, [...inside, key], tensors, module)]),
  )
}

interface Reference {
  readonly $: string
  readonly as: 'u32' | 'u8' | 'codes' | 'numbers'
  readonly type?: NumberType
  readonly bits?: number
  readonly count?: number
}

const isReference = (value: object): value is Reference => '$' in value

function restore(value: unknown, module: string, tensors: StoredModule): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((inner) => restore(inner, module, tensors))
  if (!isReference(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, restore(inner, module, tensors)]),
    )
  }
  const { $: name, as, type = 'f32', bits = 0, count = 0 } = value
  if (as === 'u32') return asUint32(expectTensor(module, tensors, name, 'U32', [-1])).slice()
  if (as === 'u8') return expectTensor(module, tensors, name, 'U8', [-1]).bytes
  if (as === 'codes') {
    const { bytes } = expectTensor(module, tensors, name, 'U8', [packedBytes(count, bits)])
    return { bits, count, data: bytes } satisfies PackedCodes
  }
  const raw = expectTensor(module, tensors, name, numbersDtype(type), [-1])
  const known = name.startsWith('/') ? sharedNumbers.get(raw) : undefined
  if (known?.type === type && known.values.length === count) return known
  try {
    const numbers = loadNumbers(type, raw.bytes, count)
    if (name.startsWith('/')) sharedNumbers.set(raw, numbers)
    return numbers
  } catch (cause) {
    throw new LowbitError('bad-tensor', (cause as Error).message, {
      tensor: tensorName(module, name),
      cause,
    })
  }
}

/** Shared tables are decoded once, and are the same object in each matrix that refers to them. */
const sharedNumbers = new WeakMap<RawTensor, Numbers>()
