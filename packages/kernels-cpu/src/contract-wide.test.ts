import { spawnSync } from 'node:child_process'
import { setFlagsFromString } from 'node:v8'
import { describeKernels } from '@lowbit/testing'
import { expect, it } from 'vitest'
import { cpu } from './cpu.ts'
import { askForWideVectors } from './wide.ts'

// The baseline compiler never fuses vectors, and small cases never leave it.
setFlagsFromString('--no-liftoff')
const wide = askForWideVectors()

describeKernels(`cpu, strict, wide: ${wide}, 2 threads`, () => cpu({ threads: 2, wide: true }))
describeKernels(`cpu, relaxed, wide: ${wide}, 1 thread`, () =>
  cpu({ threads: 1, strict: false, wide: true }),
)

// Code that is compiled stays as it is, so that each way has a process of its own.
it.for([true, false])('gives the same bits as vectors of 128 bits, strict: %s', (strict) => {
  const results = [false, true].map((wide) => {
    const url = new URL('./index.ts', import.meta.url).href
    const program = `
      const { cpu } = await import(${JSON.stringify(url)})
      const kernels = await cpu({ threads: 1, strict: ${strict}, wide: ${wide} })
      const values = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 0.37) + Math.cos(i * i * 0.11))
      const [m, n, k] = [37, 83, 301]
      const out = kernels.tensor(m, n)
      kernels.multiply(out, kernels.upload(values(m * k), m, k), kernels.upload(values(n * k), n, k))
      const codes = kernels.tensor(99, 1, 'u16')
      kernels.nearest(codes, kernels.upload(values(99 * 8), 99, 8), kernels.upload(values(256 * 8), 256, 8))
      const grid = { bits: 4, tokens: 1, channels: 32, symmetric: false }
      const past = { grid, codes: kernels.tensor(280, 8, 'u32'), scales: kernels.tensor(280, 4, 'u16') }
      kernels.encodeRows(past, 0, kernels.upload(values(280 * 64), 280, 64))
      const [query, key, attended] = [kernels.upload(values(192), 1, 192), kernels.upload(values(64), 1, 64), kernels.tensor(1, 192)]
      const shape = { heads: 3, keyValueHeads: 1, headSize: 64, scale: 0.1, start: 280 }
      kernels.attendCoded(attended, query, past, past, 280, key, key, shape)
      console.log(kernels.variant)
      console.log(Buffer.from((await kernels.read(attended)).buffer).toString('base64'))
      console.log(Buffer.from((await kernels.read(out)).buffer).toString('base64'))
      console.log((await kernels.readCodes(codes)).join())`
    const run = spawnSync(
      process.execPath,
      ['--no-liftoff', '--input-type=module', '-e', program],
      { encoding: 'utf8', timeout: 60_000 },
    )
    expect(run.stderr).toBe('')
    return run.stdout.split('\n')
  })
  expect(results[1][0].includes('256 bits')).toBe(wide)
  expect(results[1].slice(1)).toEqual(results[0].slice(1))
})
