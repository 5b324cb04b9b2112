/** Products straight from 4-bit codes, against onnxruntime-node's MatMulNBits with the same codes. */

import { packCodes, perGroup, type QuantizedMatrix, signedGrid } from '@lowbit/core'
import { type CpuKernels, cpu } from '@lowbit/kernels-cpu'
import { type Contestant, interleave, repeated } from '../measure.ts'
import { input, matMulNbits, model, type Nbits, node, output } from '../onnx/graph.ts'
import { loadOrt, sessionOptions } from '../onnx/runtime.ts'
import { firstLine } from '../peers.ts'
import { compare, type Row } from '../report.ts'
import type { Settings } from '../settings.ts'

interface Case {
  readonly rows: number
  readonly columns: number
  readonly group: number
  /** Rows of x. */
  readonly batch: number
  /** Different matrices that one call multiplies, so that small ones outweigh the call itself. */
  readonly copies: number
}

const CASES: readonly Case[] = [
  ...[32, 128].map((group) => ({ rows: 4096, columns: 4096, group, batch: 1, copies: 1 })),
  ...[32, 128].map((group) => ({ rows: 1536, columns: 576, group, batch: 1, copies: 16 })),
  ...[32, 128].map((group) => ({ rows: 4096, columns: 4096, group, batch: 512, copies: 1 })),
]

type Prepared = Contestant & { drop(): unknown }

export async function gemv({ threads, rounds, quick }: Settings): Promise<Row[]> {
  const kernels = await cpu({ threads, strict: false, wide: true })
  const rows: Row[] = []
  for (const each of quick ? CASES.slice(0, 3) : CASES) {
    const { batch, copies, group } = each
    const many = copies > 1 ? `, ${copies} matrices` : ''
    const what = `int4 g${group} ${each.rows} × ${each.columns}, ${batch} row${batch > 1 ? 's' : ''}${many}`
    const weights = Array.from({ length: copies }, () => randomCodes(each))
    const x = Float32Array.from({ length: batch * each.columns }, () => Math.random() - 0.5)
    const contestants: Prepared[] = []
    for (const activations of ['int8', 'f32'] as const) {
      contestants.push(await ours(kernels, each, weights, x, activations))
    }
    for (const level of [4, 0]) {
      try {
        contestants.push(await theirs(each, weights, x, level, threads))
      } catch (error) {
        const who = `onnxruntime-node, level ${level}`
        rows.push({ what, who, unit: '', note: `skipped: ${firstLine(error)}` })
      }
    }
    const outcomes = await interleave(contestants, rounds)
    const operations = 2 * batch * copies * each.rows * each.columns
    const figures = outcomes.map(({ name, wall, cpu }) => ({
      name,
      perCpuSecond: operations / cpu / 1e9,
      perSecond: operations / wall / 1e9,
    }))
    rows.push(...compare(what, 'GFLOP/s', figures, 'lowbit × int8'))
    for (const { drop } of contestants) await drop()
  }
  kernels.dispose()
  return rows
}

async function ours(
  kernels: CpuKernels,
  { batch, columns, rows, group }: Case,
  weights: readonly Nbits[],
  values: Float32Array,
  activations: 'f32' | 'int8',
): Promise<Prepared> {
  const x = kernels.upload(values, batch, columns)
  const out = kernels.tensor(batch, rows)
  const loaded = weights.map((weight) =>
    kernels.load(asMatrix(weight, columns, group), { activations }),
  )
  const work = () => {
    for (const weight of loaded) kernels.matmul(out, x, weight)
  }
  return {
    ...(await repeated(`lowbit × ${activations}`, work, 0.2)),
    drop() {
      kernels.free(x, out)
      for (const weight of loaded) kernels.unload(weight)
    },
  }
}

async function theirs(
  { batch, columns, rows }: Case,
  weights: readonly Nbits[],
  values: Float32Array,
  level: number,
  threads: number,
): Promise<Prepared> {
  const ort = await loadOrt()
  const products = weights.flatMap((weight, i) => matMulNbits(`w${i}`, 'x', `y${i}`, weight, level))
  const session = await ort.InferenceSession.create(
    model([
      ...products,
      node(
        'Sum',
        weights.map((_, i) => `y${i}`),
        ['y'],
      ),
      ...[input('x', 'f32', [batch, columns]), output('y', 'f32', [batch, rows])],
    ]),
    sessionOptions(threads),
  )
  const feeds = { x: new ort.Tensor('float32', values, [batch, columns]) }
  const name = `onnxruntime-node, ${level === 4 ? 'int8' : 'f32'} (level ${level})`
  return {
    ...(await repeated(name, () => session.run(feeds), 0.2)),
    drop: () => session.release(),
  }
}

function randomCodes({ rows, columns, group }: Case): Nbits {
  const groups = Math.ceil(columns / group)
  const codes = new Uint8Array((rows * groups * group) / 2)
  for (let i = 0; i < codes.length; i++) codes[i] = Math.random() * 256
  const scales = Float32Array.from({ length: rows * groups }, () => Math.random() / 100)
  return { rows, columns, bits: 4, group, codes, scales }
}

/** The same as a QuantizedMatrix, whose codes know no padding. */
function asMatrix({ rows, codes, scales }: Nbits, columns: number, group: number): QuantizedMatrix {
  const width = Math.ceil(columns / group) * group
  const plain = new Uint8Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < columns; k++) {
      const i = row * width + k
      plain[row * columns + k] = (codes[i >> 1] >> ((i & 1) * 4)) & 15
    }
  }
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(plain, 4),
        vector: { length: 1, along: 'in' },
        grid: signedGrid(4),
        scale: { blocks: perGroup(group), values: { type: 'f32', values: scales } },
      },
    ],
  }
}
