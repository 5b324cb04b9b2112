/** Vectors of weights: nearest entries, k-means, and the passes that choose codes. */

import {
  type ColumnRange,
  checkClusters,
  checkDescent,
  checkNeighbours,
  checkSums,
  checkVectorPass,
  checkVectorTable,
  type Kernels,
  LowbitError,
  type VectorRounding,
} from '@lowbit/core'
import { borrowing, type Device } from '../gpu/device.ts'
import { elementwise, LANES, type Shader } from '../gpu/shader.ts'
import { expect, expectCodes, handles, own } from '../tensors.ts'
import { runCluster } from './cluster.ts'
import { runDescent } from './descent.ts'
import { runFeedback } from './feedback.ts'
import {
  FACTOR_CODE,
  FACTOR_PARAMS,
  factorParams,
  gatherFactors,
  type VectorPass,
} from './layout.ts'
import { findNearest, findNeighbours } from './nearest.ts'
import { clusterSource, type SumsSource, sumByCodes } from './sums.ts'

type Operations = Pick<
  Kernels,
  | 'nearest'
  | 'clusterSums'
  | 'neighbours'
  | 'feedbackVectors'
  | 'decodeVectors'
  | 'scatterVectors'
  | 'cluster'
  | 'descendVectors'
>

/** Where a weight's code lies, and which of its vector's weights it is. */
const PLACE_PARAMS: Shader['params'] = {
  ...{ ...FACTOR_PARAMS, length: 'u32', down: 'u32', table_rows: 'u32', wide: 'u32', first: 'u32' },
  entries: 'u32',
}

/** One stage's values are added; the last one multiplies by the scales and adds the bias. */
const decode = elementwise('decode vectors', {
  reads: { codes: 'u32', table: 'f32', factors: 'f32' },
  writes: { out: 'f32' },
  params: { ...PLACE_PARAMS, width: 'u32', keep: 'u32', finish: 'u32' },
  functions: FACTOR_CODE,
  body: `
  let row = i / p.width;
  let column = p.first + i % p.width;
  var at = row * p.wide + (column - p.first) / p.length;
  var e = (column - p.first) % p.length;
  if (p.down == 1u) { at = (row / p.length) * p.wide + column - p.first; e = row % p.length; }
  let entry = (row / p.table_rows) * p.entries + codes[p.codes_at + at];
  let place = p.out_at + row * p.columns + column;
  var value = table[p.table_at + entry * p.length + e];
  if (p.keep == 1u) { value += out[place]; }
  if (p.finish == 1u) { value = value * scale_of(row, column) + bias_of(column); }
  out[place] = value;`,
})

/** x · scales over the weights of each entry. Tables are counted by rows, and each has whole rows of codes. */
const scatterSource = (length: number): SumsSource => ({
  ...{ name: `vectors of ${length}`, values: length },
  reads: { x: 'f32', factors: 'f32' },
  params: {
    ...{ ...FACTOR_PARAMS, rows: 'u32', down: 'u32', wide: 'u32', first: 'u32', last: 'u32' },
    ...{ code_rows: 'u32', group_rows: 'u32' },
  },
  code: `${FACTOR_CODE}
fn items_of(g: u32) -> u32 { return min(p.group_rows, p.code_rows - g * p.group_rows) * p.wide; }
fn code_of(g: u32, i: u32) -> u32 { return codes[p.codes_at + g * p.group_rows * p.wide + i]; }
fn value_of(g: u32, i: u32, e: u32) -> f32 {
  let code_row = g * p.group_rows + i / p.wide;
  var row = code_row;
  var column = p.first + (i % p.wide) * ${length}u + e;
  if (p.down == 1u) { row = code_row * ${length}u + e; column = p.first + i % p.wide; }
  if (row >= p.rows || column >= p.last) { return 0.0; }
  return x[p.x_at + row * p.columns + column] * scale_of(row, column);
}`,
})

const placeOf = (pass: VectorPass): Record<string, number> => ({
  ...{ ...factorParams(pass), length: pass.length, down: pass.along === 'out' ? 1 : 0 },
  ...{ table_rows: pass.tableRows, wide: pass.wide, first: pass.from },
})

export function vectorOperations(device: Device): Operations {
  return {
    nearest(codeTensor, input, tableTensor, distanceTensor) {
      const x = own(input)
      const { rows, columns: d } = x
      checkVectorTable(tableTensor.rows, tableTensor.columns)
      const table = expect(tableTensor, tableTensor.rows, d, 'the table')
      const codes = expectCodes(codeTensor, rows, 1, table.rows, 'u16')
      const distances = distanceTensor && expect(distanceTensor, rows, 1, 'distances')
      const points = { x, rows, d, groupRows: rows, entries: table.rows }
      findNearest(device, points, { table, codes, distances })
    },

    clusterSums(sumTensor, input, codeTensor, weights) {
      const x = own(input)
      const { rows, columns: d } = x
      const entries = sumTensor.rows
      const out = expect(sumTensor, entries, d + 1, 'sums')
      const codes = expect(codeTensor, rows, 1, 'codes', 'u16')
      const factors = weights && expect(weights, rows, 1, 'weights')
      checkVectorTable(entries, d)
      if (codes.state.below > entries) {
        throw new LowbitError('bad-index', `codes reach beyond the ${entries} entries`)
      }
      sumByCodes(
        device,
        clusterSource(d),
        { codes, x, factors: factors ?? x, out },
        { rows, group_rows: rows, weighted: factors ? 1 : 0 },
        { tables: 1, entries, items: rows },
      )
    },

    neighbours(target, tableTensor) {
      const table = own(tableTensor)
      const { rows: entries, columns: d } = table
      checkVectorTable(entries, d)
      const candidates = target.columns
      checkNeighbours(candidates, entries)
      const out = expectCodes(target, entries, candidates, entries, 'u16')
      findNeighbours(device, table, out, entries, d, candidates)
    },

    cluster(target, input, options) {
      const x = own(input)
      const { rows, columns: d } = x
      const { groupRows, entries, weights } = options
      const groups = checkClusters(rows, d, groupRows, entries)
      const table = expect(target, groups * entries, d, 'tables')
      const factors = weights && expect(weights, rows, 1, 'weights')
      runCluster(device, table, { x, rows, d, weights: factors }, options)
    },

    feedbackVectors(codes, weight, factor, options) {
      const line = own(weight)
      const u = expect(factor, line.columns, line.columns, 'factor')
      runFeedback(device, checkVectorPass(handles, codes, line, options), line, u)
    },

    decodeVectors(target, codes, options) {
      const out = own(target)
      const pass = checkVectorPass(handles, codes, out, options)
      const { rows, from, to, tables } = pass
      const count = rows * (to - from)
      borrowing(device, (take) => {
        const factors = gatherFactors(device, pass, take)
        for (const [i, table] of tables.entries()) {
          device.run(
            decode,
            { codes: pass.codes[i], table, factors, out },
            {
              ...{ ...placeOf(pass), count, width: to - from, entries: pass.entries[i] },
              ...{ keep: i > 0 ? 1 : 0, finish: i === tables.length - 1 ? 1 : 0 },
            },
            Math.ceil(count / LANES),
          )
        }
      })
    },

    scatterVectors(sums, input, codes, options: VectorRounding & ColumnRange) {
      const x = own(input)
      const pass = checkVectorPass(handles, codes, x, options)
      const { rows, length, along, from, to, groups, high, wide, tableRows } = pass
      const outs = checkSums(handles, sums, pass)
      const groupRows = along === 'out' ? high : Math.min(tableRows, rows)
      borrowing(device, (take) => {
        const factors = gatherFactors(device, pass, take)
        for (const [i, out] of outs.entries()) {
          sumByCodes(
            device,
            scatterSource(length),
            { codes: pass.codes[i], x, factors, out },
            {
              ...{ ...factorParams(pass), rows, down: along === 'out' ? 1 : 0, wide },
              ...{ first: from, last: to, code_rows: high, group_rows: groupRows },
            },
            { tables: groups, entries: pass.entries[i], items: groupRows * wide },
          )
        }
      })
    },

    descendVectors(codes, decodedTensor, weight, hessian, options) {
      const w = own(weight)
      const { rows, columns } = w
      const pass = checkVectorPass(handles, codes, w, options)
      const decoded = expect(decodedTensor, rows, columns, 'decoded')
      const h = expect(hessian, columns, columns, 'the Hessian')
      const near = checkDescent(handles, options.neighbours, pass)
      runDescent(device, pass, { w, decoded, h }, near, options.damping)
    },
  }
}
