/** Tables of values for blocks of a weight: fitted, read, and summed for. */

import { checkTables, type Kernels } from '@lowbit/core'
import type { Device } from '../gpu/device.ts'
import { elementwise, LANES } from '../gpu/shader.ts'
import { expect, handles, own } from '../tensors.ts'
import { type SumsSource, sumByCodes } from '../vectors/sums.ts'
import { fitByKMeans, fitEvenly } from './fit.ts'

type Operations = Pick<Kernels, 'fitTables' | 'decodeCodes' | 'sumByCode'>

const decode = elementwise('decode codes', {
  reads: { codes: 'u32', tables: 'f32', scales: 'f32' },
  writes: { out: 'f32' },
  params: {
    ...{ columns: 'u32', block_rows: 'u32', block_columns: 'u32', across: 'u32' },
    ...{ entries: 'u32', scaled: 'u32' },
  },
  body: `
  let row = i / p.columns;
  let block = (row / p.block_rows) * p.across + (i % p.columns) / p.block_columns;
  var value = tables[p.tables_at + block * p.entries + codes[p.codes_at + i]];
  if (p.scaled == 1u) { value *= scales[p.scales_at + row]; }
  out[p.out_at + i] = value;`,
})

const blockSource: SumsSource = {
  ...{ name: 'blocks', values: 1 },
  reads: { x: 'f32', scales: 'f32' },
  params: {
    ...{ rows: 'u32', columns: 'u32', block_rows: 'u32', block_columns: 'u32', across: 'u32' },
    scaled: 'u32',
  },
  code: `
fn items_of(g: u32) -> u32 {
  let high = min(p.block_rows, p.rows - (g / p.across) * p.block_rows);
  return high * min(p.block_columns, p.columns - (g % p.across) * p.block_columns);
}
fn place_of(g: u32, i: u32) -> u32 {
  let left = (g % p.across) * p.block_columns;
  let wide = min(p.block_columns, p.columns - left);
  return ((g / p.across) * p.block_rows + i / wide) * p.columns + left + i % wide;
}
fn code_of(g: u32, i: u32) -> u32 { return codes[p.codes_at + place_of(g, i)]; }
fn value_of(g: u32, i: u32, e: u32) -> f32 {
  let place = place_of(g, i);
  var value = x[p.x_at + place];
  if (p.scaled == 1u) { value *= scales[p.scales_at + place / p.columns]; }
  return value;
}`,
}

export function tableOperations(device: Device): Operations {
  return {
    fitTables(tableTensor, weight, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { blockRows, blockColumns, method, importance: given } = options
      const { span, scales, entries } = checkTables(handles, tableTensor, rows, columns, options)
      const each = given !== undefined && given.rows !== 1
      const importance = given && expect(given, each ? rows : 1, columns, 'importance')
      const fit = { w, rows, columns, blockRows, blockColumns, entries, scales, importance, each }
      if (method === 'uniform') fitEvenly(device, span, fit)
      else fitByKMeans(device, span, fit)
    },

    decodeCodes(target, codeTensor, tableTensor, blocks) {
      const codes = own(codeTensor, 'u8')
      const { rows, columns } = codes
      const out = expect(target, rows, columns, 'out')
      const { span, scales, entries, params } = checkTables(
        handles,
        tableTensor,
        rows,
        columns,
        blocks,
      )
      const count = rows * columns
      device.run(
        decode,
        { codes, tables: span, scales: scales ?? span, out },
        { ...params, scaled: scales ? 1 : 0, count, entries },
        Math.ceil(count / LANES),
      )
    },

    sumByCode(sums, input, codeTensor, blocks) {
      const codes = own(codeTensor, 'u8')
      const { rows, columns } = codes
      const x = expect(input, rows, columns, 'x')
      const { span, scales, entries, count, params } = checkTables(
        handles,
        sums,
        rows,
        columns,
        blocks,
      )
      const items = Math.min(blocks.blockRows, rows) * Math.min(blocks.blockColumns, columns)
      const spans = { codes, x, scales: scales ?? x, out: span }
      const sizes = { tables: count, entries, items }
      sumByCodes(device, blockSource, spans, { ...params, rows, scaled: scales ? 1 : 0 }, sizes)
    },
  }
}
