/** Scales, codes, and the passes that round column by column. */

import {
  checkBlocks,
  columnBlocks,
  gridWords,
  type Kernels,
  LowbitError,
  type Rounding,
  type Tensor,
} from '@lowbit/core'
import { plain, product } from '../algebra/product.ts'
import type { Device, Span } from '../gpu/device.ts'
import { elementwise, LANES } from '../gpu/shader.ts'
import { expect, expectCodes, own } from '../tensors.ts'
import { fitParams, fitShader } from './fit.ts'
import { GRID_CODE, GRID_PARAMS } from './grid.ts'

type Operations = Pick<Kernels, 'fit' | 'round' | 'feedback' | 'descend'>

const BLOCKS = { block_rows: 'u32', across: 'u32', has_zero: 'u32' } as const

const round = elementwise('round', {
  reads: { w: 'f32', scales: 'f32', zeros: 'f32', grid: 'u32' },
  writes: { codes: 'u32', decoded: 'f32' },
  params: { ...GRID_PARAMS, ...BLOCKS, columns: 'u32', block_columns: 'u32', decode: 'u32' },
  functions: GRID_CODE,
  body: `
  let row = i / p.columns;
  let column = i % p.columns;
  let block = (row / p.block_rows) * p.across + column / p.block_columns;
  let scale = scales[p.scales_at + block];
  var zero = 0.0;
  if (p.has_zero == 1u) { zero = zeros[p.zeros_at + block]; }
  var x = 0.0;
  if (scale != 0.0) { x = w[p.w_at + i] / scale; }
  let hit = nearest(x, zero, row, column);
  codes[p.codes_at + i] = hit.code;
  if (p.decode == 1u) { decoded[p.decoded_at + i] = scale * (hit.value - zero); }`,
})

/** Columns that a thread rounds before what they leave goes to all later ones in one product. */
const STEP = 32

/**
 * One row a thread, over the columns [begin, begin + size). Pass 0 is feedback: each error, over the factor's diagonal,
 * goes into the later ones of these columns. Pass 1 is coordinate descent: `line` is the slope (w − q)·(H + λ1) and
 * follows each change. What later columns need is left in `errors` [rows, STEP]. The block of scales and the block of
 * tables of each column stand behind the grid, at `p.places`. All that in eight buffers, the most that every device has.
 */
const pass = elementwise('round column by column', {
  reads: { scales: 'f32', zeros: 'f32', grid: 'u32', u: 'f32' },
  writes: { line: 'f32', codes: 'u32', decoded: 'f32', errors: 'f32' },
  params: {
    ...GRID_PARAMS,
    ...BLOCKS,
    ...{ columns: 'u32', begin: 'u32', size: 'u32', kind: 'u32', damping: 'f32', places: 'u32' },
  },
  functions: GRID_CODE,
  body: `
  var values: array<f32, ${STEP}>;
  let at = p.line_at + i * p.columns + p.begin;
  for (var j = 0u; j < p.size; j++) { values[j] = line[at + j]; }
  for (var j = 0u; j < p.size; j++) {
    let column = p.begin + j;
    let block = (i / p.block_rows) * p.across + grid[p.places + column];
    let scale = scales[p.scales_at + block];
    var zero = 0.0;
    if (p.has_zero == 1u) { zero = zeros[p.zeros_at + block]; }
    let place = i * p.columns + column;
    let diagonal = u[p.u_at + column * p.columns + column];
    var aim = values[j];
    var old = 0.0;
    if (p.kind == 1u) {
      old = decoded[p.decoded_at + place];
      let power = diagonal + p.damping;
      aim = old;
      if (power > 0.0) { aim += values[j] / power; }
    }
    var x = 0.0;
    if (scale != 0.0) { x = aim / scale; }
    // Which table a column has stands beside its block.
    let hit = nearest(x, zero, i, grid[p.places + p.columns + column] * p.grid_columns);
    let q = scale * (hit.value - zero);
    codes[p.codes_at + place] = hit.code;
    decoded[p.decoded_at + place] = q;
    var error = q - old;
    if (p.kind == 0u) { error = (values[j] - q) / diagonal; }
    errors[p.errors_at + i * ${STEP}u + j] = error;
    for (var k = j + 1u; k < p.size; k++) {
      values[k] -= error * u[p.u_at + column * p.columns + p.begin + k];
    }
  }`,
})

export function quantizeOperations(device: Device): Operations {
  function ownScales(scale: Tensor, zero: Tensor | undefined, weight: Tensor, rounding: Rounding) {
    const { down, across } = checkBlocks(weight, rounding)
    const scales = expect(scale, down, across, 'scale')
    const zeros = zero && expect(zero, down, across, 'zero')
    const params = { block_rows: rounding.blockRows, across, has_zero: zeros ? 1 : 0 }
    return { scales, zeros: zeros ?? scales, params, down }
  }

  /** Runs `pass` over the columns [from, to), step by step, and feeds later columns of `line`. */
  function sweep(
    spans: Record<'scales' | 'zeros' | 'u' | 'line' | 'codes' | 'decoded', Span>,
    params: Record<string, number>,
    grid: Uint32Array,
    blocks: Uint32Array,
    [rows, columns, first, last]: readonly [number, number, number, number],
  ): void {
    const places = grid.length
    const words = new Uint32Array(places + blocks.length)
    words.set(grid)
    words.set(blocks, places)
    const held = [device.allocate(rows * STEP), device.allocate(words.length, words)]
    const [errors, tables] = held
    try {
      for (let begin = first; begin < last; begin += STEP) {
        const size = Math.min(STEP, last - begin)
        device.run(
          pass,
          { ...spans, errors, grid: tables },
          { ...params, count: rows, columns, begin, size, places },
          Math.ceil(rows / LANES),
        )
        const end = begin + size
        if (end === columns) continue
        product(device, {
          out: plain(spans.line, columns, end),
          a: plain(errors, STEP),
          b: plain(spans.u, columns, begin * columns + end),
          ...{ rows, columns: columns - end, depth: size, factor: -1, keep: 1 },
        })
      }
    } finally {
      for (const span of held) device.release(span)
    }
  }

  return {
    fit(scale, zero, weight, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { blockColumns, asymmetric, importance, grid } = options
      const { scales, zeros, params, down } = ownScales(scale, zero, w, options)
      if (asymmetric !== (zero !== undefined)) {
        throw new LowbitError('bad-shape', 'a tensor of zero points belongs to asymmetric blocks')
      }
      const factors = importance && expect(importance, 1, columns, 'importance')
      if (grid.kind === 'lookup' && grid.blocks) {
        throw new LowbitError('bad-grid', 'scales are fitted to a grid with one table')
      }
      const { words, params: table, largest } = gridWords(grid, rows, columns)
      const spare = zero ? zeros : device.scratch(1)
      device.run(
        fitShader,
        {
          ...{ w, importance: factors ?? w, grid: device.constant(words) },
          ...{ scales, zeros: spare },
        },
        {
          ...{ ...table, ...params, ...fitParams(options, largest), rows, columns },
          ...{ grid_rows: rows, grid_columns: columns },
          ...{ block_columns: blockColumns, weighed: factors ? 1 : 0 },
        },
        down * params.across,
      )
    },

    round(codeTensor, decodedTensor, weight, scale, zero, rounding) {
      const w = own(weight)
      const { rows, columns } = w
      const { scales, zeros, params } = ownScales(scale, zero, w, rounding)
      const { words, params: table, levels } = gridWords(rounding.grid, rows, columns)
      const decoded = decodedTensor && expect(decodedTensor, rows, columns, 'decoded')
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      const count = rows * columns
      const grid = device.constant(words)
      device.run(
        round,
        { w, scales, zeros, grid, codes, decoded: decoded ?? device.scratch(1) },
        {
          ...{ ...table, ...params, count, columns, block_columns: rounding.blockColumns },
          decode: decoded ? 1 : 0,
        },
        Math.ceil(count / LANES),
      )
    },

    feedback(codeTensor, weight, factor, scale, zero, options) {
      const line = own(weight)
      const { rows, columns } = line
      const { from, to, blockRows, grid } = options
      const u = expect(factor, columns, columns, 'factor')
      const scales = expect(scale, Math.ceil(rows / blockRows), scale.columns, 'scale')
      const zeros = zero ? expect(zero, scale.rows, scale.columns, 'zero') : scales
      if (!(Number.isInteger(from) && from >= 0 && from <= to && to <= columns)) {
        throw new LowbitError('bad-shape', `columns ${from} to ${to} of ${columns}`)
      }
      const { words, params: table, levels } = gridWords(grid, rows, columns)
      const blocks = columnBlocks(options, columns, scale.columns)
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      // The quantized values take the place of the weight when the pass is over: until then they lie apart.
      const decoded = device.allocate(rows * columns)
      try {
        sweep(
          { scales, zeros, u, line, codes, decoded },
          {
            ...{ ...table, block_rows: blockRows, across: scale.columns, kind: 0, damping: 0 },
            has_zero: zero ? 1 : 0,
          },
          ...[words, blocks, [rows, columns, from, to] as const],
        )
        const params = { count: rows * (to - from), columns, begin: from, size: to - from }
        device.run(
          putColumns,
          { x: decoded, out: line },
          params,
          Math.ceil((rows * (to - from)) / LANES),
        )
      } finally {
        device.release(decoded)
      }
    },

    descend(codeTensor, decodedTensor, weight, hessian, scale, zero, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { damping, grid } = options
      const decoded = expect(decodedTensor, rows, columns, 'decoded')
      const h = expect(hessian, columns, columns, 'the Hessian')
      const { scales, zeros, params } = ownScales(scale, zero, w, options)
      const { words, params: table, levels } = gridWords(grid, rows, columns)
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      const held = [device.allocate(rows * columns), device.allocate(rows * columns)]
      const [rest, line] = held
      try {
        const count = rows * columns
        device.run(difference, { a: w, b: decoded, out: rest }, { count }, Math.ceil(count / LANES))
        device.copy(line, rest)
        product(device, {
          ...{ out: plain(line, columns), a: plain(rest, columns), b: plain(h, columns) },
          ...{ rows, columns, depth: columns, keep: damping },
        })
        sweep(
          { scales, zeros, u: h, line, codes, decoded },
          { ...table, ...params, kind: 1, damping },
          ...[words, columnBlocks(options, columns, params.across)],
          [rows, columns, 0, columns],
        )
      } finally {
        for (const span of held) device.release(span)
      }
    },
  }
}

const difference = elementwise('what is left', {
  reads: { a: 'f32', b: 'f32' },
  writes: { out: 'f32' },
  params: {},
  body: 'out[p.out_at + i] = a[p.a_at + i] - b[p.b_at + i];',
})

const putColumns = elementwise('columns put in place', {
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', begin: 'u32', size: 'u32' },
  body: `
  let at = (i / p.size) * p.columns + p.begin + i % p.size;
  out[p.out_at + at] = x[p.x_at + at];`,
})
