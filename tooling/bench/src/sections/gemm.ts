/** Dense f32 products, n × n × n, against onnxruntime-node's MatMul. */

import { cpu } from '@lowbit/kernels-cpu'
import { interleave, repeated } from '../measure.ts'
import { input, model, node, output } from '../onnx/graph.ts'
import { loadOrt, sessionOptions } from '../onnx/runtime.ts'
import { firstLine } from '../peers.ts'
import { compare, type Row } from '../report.ts'
import type { Settings } from '../settings.ts'

const random = (count: number) => Float32Array.from({ length: count }, () => Math.random() - 0.5)

export async function gemm({ threads, rounds, quick }: Settings): Promise<Row[]> {
  const rows: Row[] = []
  const relaxed = await cpu({ threads, strict: false, wide: true })
  const strict = await cpu({ threads, strict: true, wide: true })
  for (const n of quick ? [512] : [512, 1024, 2048]) {
    const what = `GEMM f32 ${n}³`
    const [a, b] = [random(n * n), random(n * n)]
    const contestants = []
    for (const kernels of [relaxed, strict]) {
      const tensors = [kernels.tensor(n, n), kernels.upload(a, n, n), kernels.upload(b, n, n)]
      const name = kernels.strict ? 'lowbit, strict' : 'lowbit'
      const work = () => kernels.multiply(tensors[0], tensors[1], tensors[2])
      contestants.push({
        ...(await repeated(name, work, 0.3)),
        drop: () => kernels.free(...tensors),
      })
    }
    try {
      const ort = await loadOrt()
      const shape = [n, n]
      const session = await ort.InferenceSession.create(
        model([
          node('MatMul', ['a', 'b'], ['c']),
          ...[input('a', 'f32', shape), input('b', 'f32', shape), output('c', 'f32', shape)],
        ]),
        sessionOptions(threads),
      )
      const feeds = {
        a: new ort.Tensor('float32', a, shape),
        b: new ort.Tensor('float32', b, shape),
      }
      contestants.push({
        ...(await repeated('onnxruntime-node', () => session.run(feeds), 0.3)),
        drop: () => session.release(),
      })
    } catch (error) {
      rows.push({ what, who: 'onnxruntime-node', unit: '', note: `skipped: ${firstLine(error)}` })
    }
    const outcomes = await interleave(contestants, rounds)
    const figures = outcomes.map(({ name, wall, cpu }) => ({
      name,
      perCpuSecond: (2 * n ** 3) / cpu / 1e9,
      perSecond: (2 * n ** 3) / wall / 1e9,
    }))
    rows.push(...compare(what, 'GFLOP/s', figures, 'lowbit'))
    for (const { drop } of contestants) await drop()
  }
  relaxed.dispose()
  strict.dispose()
  return rows
}
