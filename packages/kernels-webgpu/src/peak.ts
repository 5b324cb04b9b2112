/** What the adapter itself can do at most, which the kernels' speed is a share of. */

import type { Device, Span } from './gpu/device.ts'
import { LANES, type Shader } from './gpu/shader.ts'

export interface Peak {
  /** Of multiplications and additions in f32 that wait for nothing. */
  readonly gigaflops: number
  /** Of copies, read and written bytes counted once each. */
  readonly gigabytesPerSecond: number
}

const STEPS = 256
const CHAINS = 4
const THREADS = 2 ** 14
const COPIED = 2 ** 23

const multiplyAdd: Shader = {
  name: 'multiply and add',
  reads: {},
  writes: { out: 'f32' },
  params: { factor: 'f32' },
  code: `
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let i = group * ${LANES}u + lane;
  let term = vec4f(f32(i), 1.0, 2.0, 3.0) * 1e-6;
  ${Array.from({ length: CHAINS }, (_, c) => `var sum${c} = term * ${c + 1}.0;`).join(' ')}
  for (var step = 0u; step < ${STEPS}u; step++) {
    ${Array.from({ length: CHAINS }, (_, c) => `sum${c} = fma(sum${c}, vec4f(p.factor), term);`).join(' ')}
  }
  let all = ${Array.from({ length: CHAINS }, (_, c) => `sum${c}`).join(' + ')};
  out[p.out_at + i] = all.x + all.y + all.z + all.w;
}`,
}

export async function measurePeak(device: Device): Promise<Peak> {
  const [x, out] = [device.allocate(COPIED), device.allocate(COPIED)]
  try {
    const settle = (span: Span) => device.read({ ...span, length: 1 })
    const rate = async (work: () => void, result: Span): Promise<number> => {
      work()
      await settle(result)
      for (let calls = 1; ; calls *= 2) {
        const started = performance.now()
        for (let i = 0; i < calls; i++) work()
        await settle(result)
        const seconds = (performance.now() - started) / 1000
        if (seconds > 0.2 || calls >= 2 ** 16) return calls / seconds
      }
    }
    const sums = await rate(
      () => device.run(multiplyAdd, { out }, { factor: 0.5 }, THREADS / LANES),
      out,
    )
    const copies = await rate(() => device.copy(out, x), out)
    return {
      gigaflops: (sums * THREADS * STEPS * CHAINS * 4 * 2) / 1e9,
      gigabytesPerSecond: (copies * 2 * 4 * COPIED) / 1e9,
    }
  } finally {
    device.release(x)
    device.release(out)
  }
}
