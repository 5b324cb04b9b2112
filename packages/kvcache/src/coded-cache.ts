/** A cache of layers that keep their older tokens in codes. */

import {
  bytesOfTensor,
  type Cache,
  type CacheGrid,
  type CacheScheme,
  type CacheShape,
  codebookSize,
  HALVES,
  type Kernels,
  LowbitError,
  type Tensor,
} from '@lowbit/core'
import type { CacheCodebooks } from './codebooks.ts'
import { createLayer, layoutBytes, type Rotated, usualLayout } from './layer.ts'
import { loadPositions } from './positions.ts'

export interface GridChoice {
  /** 16: halves, of which none share a scale. */
  readonly bits: 2 | 3 | 4 | 8 | 16
  /** What shares a scale: `token`: `group` channels of one; `channel`: `group` tokens of one channel. */
  readonly per: 'token' | 'channel'
  readonly group: number
  readonly symmetric: boolean
  readonly table?: Float32Array
  /** The share of a block's range that codes cover; numbers outside go to its ends. All of it by default. */
  readonly range?: number
  /** Channels that a code stands for, which then have codebooks; bits are 8 and nothing has scales. */
  readonly coupled?: 4 | 8
  /** The share of a token's numbers that are kept beside the codes, one at least where it is not 0. */
  readonly outliers?: number
}

export interface CodedCacheOptions {
  readonly keys: GridChoice
  readonly values: GridChoice
  readonly window: number
  readonly sinks: number
  /** The newest tokens that are kept at all; 0: all are. */
  readonly slide: number
  readonly rotate: Rotated
  /** Whether keys are coded behind RoPE, or before it and turned when they are read. */
  readonly positions?: 'behind' | 'before'
  /** Of each layer, where channels are coupled: without them nothing can be created. */
  readonly codebooks?: readonly CacheCodebooks[]
}

export function codedCache(
  name: string,
  given: Readonly<Record<string, unknown>>,
  options: CodedCacheOptions,
): CacheScheme {
  return {
    kind: 'cache',
    name,
    options: given,
    create: (kernels, shape) => createCache(kernels, shape, name, options),
    size(shape, length) {
      const { layers, keyValueHeads, headSize } = shape
      const width = keyValueHeads * headSize
      const outliers = outlierCounts(options, width)
      const choices = { ...options, ...gridsOf(options, shape, name), outliers }
      const layout = usualLayout(choices, length)
      return {
        bytes:
          layers * layoutBytes(choices, layout, width) +
          // Cosines, sines, and those of the way back.
          (options.positions === 'before' ? 3 * length * (headSize / 2) * 4 : 0),
        tokens: length - layout.forgotten,
        codedNumbers: layers * layout.coded * width * 2,
      }
    },
  }
}

/** Outliers of a token, of keys and of values. */
const outlierCounts = ({ keys, values }: CodedCacheOptions, width: number) =>
  [keys, values].map(({ outliers = 0 }) =>
    outliers > 0 ? Math.max(1, Math.round(outliers * width)) : 0,
  ) as [number, number]

/** The grids of keys and values for heads of a model; refuses what does not go with them. */
function gridsOf(
  { keys, values, window, slide, positions, rotate }: CodedCacheOptions,
  { headSize, context }: Omit<CacheShape, 'capacity'>,
  name: string,
): { keys: CacheGrid; values: CacheGrid } {
  const refuse = (why: string): never => {
    throw new LowbitError('bad-option', `cache ${name}: ${why}`, { option: 'cache' })
  }
  if (context !== undefined && window > context) {
    refuse(`a window of ${window} tokens is longer than the model's context of ${context}`)
  }
  if (positions === 'before' && slide > 0) {
    refuse('keys coded before RoPE stay in their places; set slide to 0, or positions to behind')
  }
  if (headSize % 8 !== 0) refuse(`heads of ${headSize} numbers do not divide into eights`)
  const grids = { keys: gridOf(keys, headSize, refuse), values: gridOf(values, headSize, refuse) }
  if ((rotate.keys || rotate.values) && !Number.isInteger(Math.log2(headSize))) {
    refuse(
      `a rotation needs heads of a power of two, not of ${headSize}; choose --cache-rotation none`,
    )
  }
  return grids
}

function createCache(
  kernels: Kernels,
  shape: CacheShape,
  name: string,
  options: CodedCacheOptions,
): Cache {
  const { layers: count, capacity } = shape
  const grids = gridsOf(options, shape, name)
  const outliers = outlierCounts(options, shape.keyValueHeads * shape.headSize)
  const codebooks = codebooksOf(options, grids, shape, name)
  const positions =
    options.positions === 'before' ? loadPositions(kernels, shape, capacity) : undefined
  const layers = Array.from({ length: count }, (_, i) =>
    createLayer(kernels, shape, {
      ...options,
      ...grids,
      outliers,
      codebooks: codebooks?.[i],
      positions,
    }),
  )
  let length = 0
  return {
    get length() {
      return length
    },
    get bytes() {
      const angles = Object.values(positions ?? {})
      const shared = angles.reduce((sum, tensor) => sum + bytesOfTensor(tensor), 0)
      return layers.reduce((sum, layer) => sum + layer.bytes, shared)
    },
    get steady() {
      return layers[0].steady(length)
    },
    append(layer, newKeys, newValues) {
      if (length + newKeys.rows > capacity) {
        throw new LowbitError(
          'cache-full',
          `the cache holds ${capacity} tokens, ${length + newKeys.rows} are needed`,
          { option: 'context' },
        )
      }
      layers[layer].append(newKeys, newValues, length)
    },
    attend(layer, out, q, attention) {
      layers[layer].attend(out, q, attention, length)
    },
    advance(tokens) {
      length += tokens
      for (const layer of layers) layer.settle(length)
    },
    truncate(to) {
      if (to >= length) return
      length = layers[0].layout(length).forgotten > 0 ? 0 : Math.max(0, to)
      for (const layer of layers) layer.truncate(length)
    },
    layout: () => ({ ...layers[0].layout(length) }),
    parts() {
      const found = new Map<string, Tensor>()
      for (const [i, layer] of layers.entries()) {
        for (const [part, tensor] of layer.parts(length)) found.set(`${i}.${part}`, tensor)
      }
      return found
    },
    prepare(layout) {
      const { length: tokens, coded = -1, forgotten = -1 } = layout
      length = 0
      if (!layers.every((layer) => layer.prepare({ length: tokens, coded, forgotten }))) {
        throw new LowbitError(
          'bad-cache',
          `cache ${name}: no tokens are kept as ${JSON.stringify(layout)}`,
        )
      }
      length = tokens
    },
    dispose() {
      for (const layer of layers) layer.dispose()
      if (positions) kernels.free(...Object.values(positions))
    },
  }
}

/** Codebooks of keys and values, layer by layer; refuses those of another model. */
function codebooksOf(
  { codebooks }: CodedCacheOptions,
  grids: { keys: CacheGrid; values: CacheGrid },
  { layers, keyValueHeads, headSize }: CacheShape,
  name: string,
): [Float32Array, Float32Array][] | undefined {
  if (!grids.keys.coupled && !grids.values.coupled) return undefined
  const sizes = [grids.keys, grids.values].map((grid) =>
    codebookSize(grid, keyValueHeads * headSize),
  )
  const fits =
    codebooks?.length === layers &&
    codebooks.every(({ keys, values }) => keys.length === sizes[0] && values.length === sizes[1])
  if (!fits) {
    throw new LowbitError(
      'bad-option',
      codebooks
        ? `cache ${name}: it was fitted to another model`
        : `cache ${name} is fitted to a model before it is used: fitCache(decoder, scheme, texts) of @lowbit/model gives one that is`,
      { option: 'cache' },
    )
  }
  return codebooks.map(({ keys, values }) => [keys, values])
}

function gridOf(
  { bits, per, group, symmetric, table, range, coupled }: GridChoice,
  headSize: number,
  refuse: (why: string) => never,
): CacheGrid {
  if (bits === 16) return HALVES
  if (coupled) return { ...HALVES, bits, coupled }
  const rest = { bits, symmetric, ...(table && { table }), ...(range && { range }) }
  if (per === 'channel') {
    if (group % 8 !== 0) refuse(`groups of ${group} tokens are no multiple of 8`)
    return { ...rest, tokens: group, channels: 1 }
  }
  const channels = Math.min(group, headSize)
  if (channels % 8 !== 0 || headSize % channels !== 0) {
    refuse(`groups of ${group} do not divide heads of ${headSize} into multiples of 8`)
  }
  return { ...rest, tokens: 1, channels }
}
