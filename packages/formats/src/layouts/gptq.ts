/**
 * The checkpoint of AutoGPTQ and GPTQModel (also loaded by transformers and vLLM).
 *
 * qweight I32 [in·bits/32, out]: codes packed along in, LSB first; qzeros I32 [groups, out·bits/32]: packed
 * along out; scales F16 [groups, out]; g_idx I32 [in]. W[i, o] = scales[g, o]·(q[i, o] − z[g, o]).
 * 3-bit codes run on across words as one bit stream. v1 ("gptq") stores z − 1, v2 ("gptq_v2") stores z.
 */

import {
  type Format,
  type FormatContext,
  fromFloat32,
  isNested,
  isQuantized,
  LowbitError,
  type Matrix,
  packCodes,
  type QuantizedMatrix,
  type RawTensor,
  type Stage,
  type StoredModule,
  signedGrid,
  toFloat32,
  unpackCodes,
  unsignedGrid,
} from '@lowbit/core'
import { asUint16, asUint32, expectTensor, rawTensor } from './raw.ts'

const BITS = [2, 3, 4, 8]
const TENSORS = ['qweight', 'qzeros', 'scales', 'g_idx']

interface GptqConfig {
  readonly bits: number
  readonly groupSize: number
  readonly version: 1 | 2
}

/** `version` 1 is what every engine loads; 2 also holds zero points of 0. */
export function gptqFormat(version: 1 | 2): Format {
  const name = version === 1 ? 'gptq' : 'gptq_v2'
  return {
    kind: 'format',
    name,
    summary:
      version === 1
        ? 'GPTQ checkpoints with zero points stored less one (AutoGPTQ)'
        : 'GPTQ checkpoints with zero points as they are (GPTQModel)',
    engines: ['transformers', 'vLLM', 'GPTQModel', 'ExLlama'],
    detect: (config) => settingsOf(config)?.version === version,
    tensorsOf: (has) => (has('qweight') ? TENSORS.filter(has) : undefined),
    read: (module, tensors, context) => readModule(module, tensors, context, version),
    refuses: (matrix) => refuses(matrix, version),
    write: (module, matrix) => writeModule(module, matrix, version),
    describe(matrix) {
      const { stage, bits, groupSize } = shapeOf(matrix)
      return {
        bits,
        groupSize,
        symmetric: stage.zero === undefined,
        ordered: isQuantized(matrix) && matrix.order !== undefined,
      }
    },
    config: (modules) => ({ quantization_config: quantizationConfig(modules, name) }),
  }
}

export const gptq = gptqFormat(1)
export const gptqV2 = gptqFormat(2)

function settingsOf(config: Readonly<Record<string, unknown>>): GptqConfig | undefined {
  const settings = config.quantization_config as Record<string, unknown> | undefined
  if (settings?.quant_method !== 'gptq') return undefined
  const format = settings.checkpoint_format ?? settings.format ?? 'gptq'
  return {
    bits: Number(settings.bits),
    groupSize: Number(settings.group_size ?? -1),
    version: format === 'gptq_v2' ? 2 : 1,
  }
}

function readModule(
  module: string,
  tensors: StoredModule,
  { config }: FormatContext,
  version: 1 | 2,
): QuantizedMatrix {
  const qweight = expectTensor(module, tensors, 'qweight', 'I32', [-1, -1])
  const scales = expectTensor(module, tensors, 'scales', 'F16', [-1, qweight.shape[1]])
  const rows = qweight.shape[1]
  const groups = scales.shape[0]
  const bad = (tensor: string, what: string): never => {
    throw new LowbitError('bad-tensor', what, { tensor: `${module}.${tensor}` })
  }
  const { bits, columns } = sizeOf(tensors, qweight, config, groups, bad)
  const zeroWords = (rows * bits) / 32
  const qzeros = expectTensor(module, tensors, 'qzeros', 'I32', [groups, Math.ceil(zeroWords)])
  const natural = unpackAlongIn(qweight, bits, rows, columns)
  const groupOf = tensors.has('g_idx')
    ? asUint32(expectTensor(module, tensors, 'g_idx', 'I32', [columns]))
    : undefined
  const groupSize = groups === 1 ? columns : groupSizeOf(config, columns, groups, groupOf)
  if (!groupSize) {
    return bad('g_idx', `${columns} columns in ${groups} groups of unequal size can't be read`)
  }
  const order = groupOf && orderOf(groupOf, groupSize, groups, bad)
  const zeros = decodeZeros(qzeros, bits, groups, rows, version)
  const values = transpose(toFloat32('f16', asUint16(scales)), groups, rows)
  const blocks = { rows: 1, columns: groupSize }
  const middle = 2 ** (bits - 1)
  const symmetric = zeros.every((z) => z === middle)
  const stage: Stage = {
    codes: packCodes(order ? permute(natural, rows, order) : natural, bits),
    vector: { length: 1, along: 'in' },
    grid: symmetric ? signedGrid(bits) : unsignedGrid(bits),
    scale: { blocks, values: { type: 'f16', values } },
    ...(!symmetric && {
      zero: {
        blocks,
        values: {
          // A zero point one past the codes comes from v1 files and needs a bit more.
          type: zeros.some((z) => z >= 2 ** bits) ? 'f16' : (`u${bits}` as 'u4'),
          values: transpose(zeros, groups, rows),
        },
      },
    }),
  }
  return { rows, columns, stages: [stage], ...(order && { order }) }
}

/** Bits and columns from g_idx when there is one: mixed checkpoints say only their main setting in config.json. */
function sizeOf(
  tensors: StoredModule,
  qweight: RawTensor,
  config: Readonly<Record<string, unknown>>,
  groups: number,
  bad: (tensor: string, what: string) => never,
): { bits: number; columns: number } {
  const words = qweight.shape[0]
  const index = tensors.get('g_idx')
  const nominal = settingsOf(config)?.bits ?? 4
  const bits = index ? (words * 32) / index.shape[0] : nominal
  if (!BITS.includes(bits)) {
    bad(
      'qweight',
      `its ${words} words are not 2, 3, 4 or 8 bits for each of the ${index?.shape[0] ?? '?'} columns of g_idx`,
    )
  }
  const columns = (words * 32) / bits
  if (!Number.isInteger(columns) || columns === 0 || groups === 0 || groups > columns) {
    bad('qweight', `${words} words of ${bits}-bit codes in ${groups} groups make no matrix`)
  }
  return { bits, columns }
}

function groupSizeOf(
  config: Readonly<Record<string, unknown>>,
  columns: number,
  groups: number,
  groupOf: Uint32Array | undefined,
): number | undefined {
  const nominal = settingsOf(config)?.groupSize ?? -1
  const fits = (size: number): boolean => size > 0 && Math.ceil(columns / size) === groups
  if (fits(nominal)) return nominal
  const counted = groupOf?.reduce((count, group) => count + (group === 0 ? 1 : 0), 0) ?? 0
  if (fits(counted)) return counted
  return fits(Math.ceil(columns / groups)) ? Math.ceil(columns / groups) : undefined
}

/** The stored order of columns that makes groups contiguous; undefined when they are already. */
function orderOf(
  groupOf: Uint32Array,
  groupSize: number,
  groups: number,
  bad: (tensor: string, what: string) => never,
): Uint32Array | undefined {
  if (groupOf.every((group, i) => group === Math.floor(i / groupSize))) return undefined
  const order = Uint32Array.from(groupOf.keys()).sort((a, b) => groupOf[a] - groupOf[b] || a - b)
  order.forEach((column, i) => {
    if (groupOf[column] !== Math.floor(i / groupSize) || groupOf[column] >= groups) {
      bad('g_idx', `does not name ${groups} groups of ${groupSize} columns`)
    }
  })
  return order
}

function refuses(matrix: Matrix, version: 1 | 2): string | undefined {
  if (!isQuantized(matrix)) return 'it is dense; it is stored as it is'
  if (matrix.stages.length !== 1) return 'GPTQ has one stage of codes'
  if (
    matrix.rowScale ||
    matrix.columnScale ||
    matrix.columnBias ||
    matrix.sparse ||
    matrix.rotation
  ) {
    return 'GPTQ has no column scales, sparse entries or rotations'
  }
  const [stage] = matrix.stages
  const { grid, scale, zero, bias } = stage
  if (grid.kind !== 'integer' || grid.step !== 1 || grid.levels !== 2 ** grid.bits) {
    return 'GPTQ stores integers only'
  }
  const { bits } = grid
  if (stage.codes.bits !== bits || !BITS.includes(bits))
    return `GPTQ has 2, 3, 4 or 8 bits, not ${bits}`
  if (stage.columns) return 'GPTQ covers all columns'
  if (bias) return 'GPTQ has integer zero points and no bias'
  if (zero ? grid.lowest !== 0 : grid.lowest !== -(2 ** (bits - 1))) {
    return 'the grid must be unsigned with zero points or signed without'
  }
  if (!scale || isNested(scale.values) || scale.values.type !== 'f16') return 'GPTQ scales are f16'
  const { blocks } = scale
  if ('elements' in blocks || blocks.rows !== 1) return 'GPTQ has a scale for each group of a row'
  if (zero) {
    if (isNested(zero.values) || !('columns' in zero.blocks))
      return 'zero points are plain integers'
    if (zero.blocks.columns !== blocks.columns || zero.blocks.rows !== 1) {
      return 'zero points go with the scales'
    }
    const lowest = version === 1 ? 1 : 0
    const highest = 2 ** bits - 1 + lowest
    if (zero.values.values.some((z) => !Number.isInteger(z) || z < lowest || z > highest)) {
      return version === 1
        ? 'a zero point of 0 has no place in v1, which stores it less one; use gptq_v2'
        : `zero points are integers from 0 to ${highest}`
    }
  }
  if ((matrix.columns * bits) % 32 !== 0) {
    return `${matrix.columns} columns of ${bits} bits do not fill 32-bit words`
  }
  if ((matrix.rows * bits) % 32 !== 0) {
    return `the zero points of ${matrix.rows} rows of ${bits} bits do not fill 32-bit words`
  }
  return undefined
}

function shapeOf(matrix: Matrix): { stage: Stage; bits: number; groupSize: number } {
  if (!isQuantized(matrix)) throw new LowbitError('not-storable', 'not a quantized matrix')
  const [stage] = matrix.stages
  const blocks = stage.scale?.blocks
  const groupSize = blocks && 'columns' in blocks ? blocks.columns : matrix.columns
  return { stage, bits: stage.codes.bits, groupSize: Math.min(groupSize, matrix.columns) }
}

function writeModule(module: string, matrix: Matrix, version: 1 | 2): StoredModule {
  const reason = refuses(matrix, version)
  if (reason || !isQuantized(matrix)) {
    throw new LowbitError('not-storable', `gptq can not store this matrix: ${reason}`, {
      tensor: module,
    })
  }
  const { rows, columns, order } = matrix
  const { stage, bits, groupSize } = shapeOf(matrix)
  const groups = Math.ceil(columns / groupSize)
  const stored = unpackCodes(stage.codes)
  const codes = order ? restore(stored, rows, order) : stored
  const scale = stage.scale!.values
  const zero = stage.zero?.values
  const scales = isNested(scale) ? new Float32Array() : transpose(scale.values, rows, groups)
  const zeros =
    zero && !isNested(zero)
      ? transpose(zero.values, rows, groups)
      : new Float32Array(rows * groups).fill(2 ** (bits - 1))
  const groupOf = new Int32Array(columns)
  for (let i = 0; i < columns; i++) groupOf[order ? order[i] : i] = Math.floor(i / groupSize)
  return new Map([
    ['qweight', packAlongIn(codes, bits, rows, columns)],
    ['qzeros', encodeZeros(zeros, bits, groups, rows, version)],
    ['scales', rawTensor('F16', [groups, rows], fromFloat32('f16', scales))],
    ['g_idx', rawTensor('I32', [columns], groupOf)],
  ])
}

/** Codes [rows, columns] → words [columns·bits/32, rows]: each row of the weight is a column of words. */
function packAlongIn(codes: Uint16Array, bits: number, rows: number, columns: number): RawTensor {
  const words = (columns * bits) / 32
  const out = new Uint32Array(words * rows)
  for (let row = 0; row < rows; row++) {
    const at = row * columns
    for (let i = 0, bit = 0; i < columns; i++, bit += bits) {
      const word = (bit >>> 5) * rows + row
      const shift = bit & 31
      const code = codes[at + i]
      out[word] |= code << shift
      if (shift + bits > 32) out[word + rows] |= code >>> (32 - shift)
    }
  }
  return rawTensor('I32', [words, rows], out)
}

function unpackAlongIn(
  qweight: RawTensor,
  bits: number,
  rows: number,
  columns: number,
): Uint16Array {
  const words = asUint32(qweight)
  const codes = new Uint16Array(rows * columns)
  const mask = 2 ** bits - 1
  for (let row = 0; row < rows; row++) {
    const at = row * columns
    for (let i = 0, bit = 0; i < columns; i++, bit += bits) {
      const word = (bit >>> 5) * rows + row
      const shift = bit & 31
      let code = words[word] >>> shift
      if (shift + bits > 32) code |= words[word + rows] << (32 - shift)
      codes[at + i] = code & mask
    }
  }
  return codes
}

/** Zero points [groups, rows], each row of it one bit stream of words. */
function encodeZeros(
  zeros: Float32Array,
  bits: number,
  groups: number,
  rows: number,
  version: 1 | 2,
): RawTensor {
  const less = version === 1 ? 1 : 0
  const width = (rows * bits) / 32
  const bytes = new Uint8Array(groups * width * 4)
  for (let group = 0; group < groups; group++) {
    const line = Uint16Array.from(zeros.subarray(group * rows, (group + 1) * rows), (z) => z - less)
    bytes.set(packCodes(line, bits).data, group * width * 4)
  }
  return { dtype: 'I32', shape: [groups, width], bytes }
}

function decodeZeros(
  qzeros: RawTensor,
  bits: number,
  groups: number,
  rows: number,
  version: 1 | 2,
): Float32Array {
  const width = qzeros.shape[1] * 4
  const stored = new Float32Array(groups * rows)
  for (let group = 0; group < groups; group++) {
    const data = qzeros.bytes.subarray(group * width, (group + 1) * width)
    stored.set(unpackCodes({ bits, count: rows, data }), group * rows)
  }
  // Files that say v1 but hold v2 zeros exist (Qwen, GPTQModel's own converters): in a symmetric checkpoint
  // every zero is then 2^(bits−1) where v1 would store one less.
  const middle = 2 ** (bits - 1)
  const mislabelled = version === 1 && stored.every((z) => z === middle)
  return version === 1 && !mislabelled ? stored.map((z) => z + 1) : stored
}

function quantizationConfig(
  modules: ReadonlyMap<string, Readonly<Record<string, string | number | boolean>>>,
  checkpointFormat: string,
): Record<string, unknown> {
  const keyOf = (d: Readonly<Record<string, string | number | boolean>>): string =>
    `${d.bits}/${d.groupSize}/${d.symmetric}`
  const counts = new Map<string, number>()
  for (const module of modules.values())
    counts.set(keyOf(module), (counts.get(keyOf(module)) ?? 0) + 1)
  const [main] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? ['4/128/true']
  const [bits, groupSize, symmetric] = main.split('/')
  const overrides = [...modules].filter(([, module]) => keyOf(module) !== main)
  return {
    quant_method: 'gptq',
    bits: Number(bits),
    group_size: Number(groupSize),
    sym: symmetric === 'true',
    desc_act: [...modules.values()].some((module) => module.ordered === true),
    static_groups: false,
    true_sequential: true,
    lm_head: false,
    checkpoint_format: checkpointFormat,
    pack_dtype: 'int32',
    meta: { quantizer: ['lowbit'] },
    ...(overrides.length > 0 && {
      dynamic: Object.fromEntries(
        overrides.map(([name, module]) => [
          `+:^${name.replaceAll('.', '\\.')}$`,
          { bits: module.bits, group_size: module.groupSize, sym: module.symmetric },
        ]),
      ),
    }),
  }
}

/** [a, b] → [b, a]. */
function transpose(values: Float32Array, a: number, b: number): Float32Array {
  const out = new Float32Array(a * b)
  for (let i = 0; i < a; i++) for (let j = 0; j < b; j++) out[j * a + i] = values[i * b + j]
  return out
}

/** Natural columns → stored order. */
function permute(codes: Uint16Array, rows: number, order: Uint32Array): Uint16Array {
  const columns = order.length
  const out = new Uint16Array(codes.length)
  for (let at = 0; at < rows * columns; at += columns) {
    for (let i = 0; i < columns; i++) out[at + i] = codes[at + order[i]]
  }
  return out
}

/** Stored order → natural columns. */
function restore(codes: Uint16Array, rows: number, order: Uint32Array): Uint16Array {
  const columns = order.length
  const out = new Uint16Array(codes.length)
  for (let at = 0; at < rows * columns; at += columns) {
    for (let i = 0; i < columns; i++) out[at + order[i]] = codes[at + i]
  }
  return out
}
