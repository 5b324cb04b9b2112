/** Nearest entries of tables of vectors, and k-means of groups of points. */

import {
  type ClusterOptions,
  checkClusters,
  checkNeighbours,
  checkVectorTable,
  drawnSeeds,
  evenSeeds,
  type Kernels,
  LowbitError,
  segmentSize,
} from '@lowbit/core'
import type { Device, Span } from './driver/device.ts'
import { sortSegments } from './sort.ts'
import { sumByCodes } from './sums.ts'
import { blocksOf, expect, expectCodes, own } from './tensors.ts'

type Operations = Pick<Kernels, 'nearest' | 'clusterSums' | 'neighbours' | 'cluster'>

/** Points of a block of `nearest`, and of `plus_measure`. */
const LANES = 128
const STRETCH = 2048
/** Numbers of distances at a time. */
const ROOM = 2 ** 24

/** The kernel of vectors of at most so many numbers. */
export const inFours = (kernel: string, length: number): string =>
  `${kernel}_${Math.ceil(length / 4) * 4}`

interface Points {
  readonly x: Span
  readonly rows: number
  readonly d: number
  /** Rows that share a table. */
  readonly groupRows: number
  readonly entries: number
  readonly weights?: Span
}

export function clusterOperations(device: Device): Operations {
  function findNearest(
    { x, rows, d, groupRows, entries }: Points,
    spans: { readonly table: Span; readonly codes: Span; readonly distances?: Span },
  ): void {
    const tiles = Math.ceil(groupRows / LANES)
    const sizes = { rows, group_rows: groupRows, tiles, entries, d }
    const blocks = Math.ceil(rows / groupRows) * tiles
    device.run(inFours('nearest', d), { ...spans, ...sizes, x }, blocks)
  }

  function sumClusters(
    { x, rows, d, groupRows, entries, weights }: Points,
    codes: Span,
    out: Span,
  ): void {
    const args = { x, codes, weights, rows, group_rows: groupRows, d }
    const tables = Math.ceil(rows / groupRows)
    sumByCodes(device, 'cluster_sums', out, args, {
      ...{ tables, entries, values: d + 1, items: groupRows },
    })
  }

  /** Points evenly spaced in the order of their Mahalanobis distance from the mean. */
  function spreadSeeds(table: Span, { x, rows, d, groupRows, entries }: Points): void {
    const groups = Math.ceil(rows / groupRows)
    const size = segmentSize(groupRows)
    const count = groups * size
    device.borrow(device.allocate(groups * (d + d * d) * 8), (shape) =>
      device.borrow(device.allocate(count * 8), (pairs) => {
        const args = { x, shape, pairs, rows, group_rows: groupRows, d, size, count }
        device.run('cluster_shape', args, groups)
        device.run('cluster_distances', args, blocksOf(count))
        sortSegments(device, pairs, groups, size)
        device.borrow(device.place(evenSeeds(rows, groupRows, entries)), (wanted) => {
          const all = groups * entries * d
          const sizes = { count: all, group_rows: groupRows, d, size, entries }
          device.run('take_seeds', { x, pairs, wanted, table, ...sizes }, blocksOf(all))
        })
      }),
    )
  }

  function plusSeeds(table: Span, points: Points, seed: number): void {
    const { x, rows, d, groupRows, entries, weights } = points
    const groups = Math.ceil(rows / groupRows)
    const stretches = Math.ceil(groupRows / STRETCH)
    const held = [
      ...[device.allocate(rows * 4), device.allocate(groups * stretches * 8)],
      device.place(drawnSeeds(groups, entries, seed)),
    ]
    const [far, sums, numbers] = held
    try {
      const args = { x, weights, far, sums, numbers, table, rows, d, entries, stretches }
      for (let seeds = 0; seeds < entries; seeds++) {
        const now = { ...args, group_rows: groupRows, seeds }
        if (seeds > 0) device.run('plus_measure', now, groups * stretches)
        device.run('plus_draw', now, groups)
      }
    } finally {
      for (const span of held) device.release(span)
    }
  }

  function lloyd(table: Span, points: Points, iterations: number): void {
    const { rows, d, groupRows, entries } = points
    const all = Math.ceil(rows / groupRows) * entries
    device.borrow(device.allocate(rows * 2), (codes) =>
      device.borrow(device.allocate(all * (d + 1) * 4), (sums) => {
        for (let iteration = 0; iteration < iterations; iteration++) {
          findNearest(points, { table, codes })
          sumClusters(points, codes, sums)
          device.run('cluster_means', { sums, table, count: all * d, d }, blocksOf(all * d))
        }
      }),
    )
  }

  return {
    nearest(codeTensor, input, tableTensor, distanceTensor) {
      const x = own(input)
      const { rows, columns: d } = x
      checkVectorTable(tableTensor.rows, tableTensor.columns)
      const table = expect(tableTensor, tableTensor.rows, d, 'the table')
      const codes = expectCodes(codeTensor, rows, 1, table.rows, 'u16')
      const distances = distanceTensor && expect(distanceTensor, rows, 1, 'distances')
      const points = { x, rows, d, groupRows: rows, entries: table.rows }
      findNearest(points, { table, codes, distances })
    },

    clusterSums(sumTensor, input, codeTensor, given) {
      const x = own(input)
      const { rows, columns: d } = x
      const entries = sumTensor.rows
      const out = expect(sumTensor, entries, d + 1, 'sums')
      const codes = expect(codeTensor, rows, 1, 'codes', 'u16')
      const weights = given && expect(given, rows, 1, 'weights')
      checkVectorTable(entries, d)
      if (codes.state.below > entries) {
        throw new LowbitError('bad-index', `codes reach beyond the ${entries} entries`)
      }
      sumClusters({ x, rows, d, groupRows: rows, entries, weights }, codes, out)
    },

    neighbours(target, tableTensor) {
      const table = own(tableTensor)
      const { rows: entries, columns: d } = table
      checkVectorTable(entries, d)
      const candidates = target.columns
      checkNeighbours(candidates, entries)
      const out = expectCodes(target, entries, candidates, entries, 'u16')
      const step = Math.max(1, Math.min(entries, Math.floor(ROOM / entries)))
      device.borrow(device.allocate(step * entries * 4), (far) => {
        for (let top = 0; top < entries; top += step) {
          const rows = Math.min(step, entries - top)
          const args = { table, far, out, count: rows * entries, entries, d, top, candidates }
          device.run('distances_apart', args, blocksOf(rows * entries))
          device.run('neighbours', args, rows)
        }
      })
    },

    cluster(target, input, options: ClusterOptions) {
      const x = own(input)
      const { rows, columns: d } = x
      const { entries, weights: given, seeding, seed = 0, iterations } = options
      const groups = checkClusters(rows, d, options.groupRows, entries)
      const table = expect(target, groups * entries, d, 'tables')
      const weights = given && expect(given, rows, 1, 'weights')
      const groupRows = Math.min(options.groupRows, rows)
      const points = { x, rows, d, groupRows, entries, weights }
      if (seeding === 'mahalanobis') spreadSeeds(table, points)
      else plusSeeds(table, points, seed)
      lloyd(table, points, iterations)
    },
  }
}
