import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { cpu } from './cpu.ts'
import { hasRelaxedSimd } from './module.ts'

it('does not keep the process alive', () => {
  const url = new URL('./index.ts', import.meta.url).href
  const program = `
    const { cpu } = await import(${JSON.stringify(url)})
    const kernels = await cpu({ threads: 3 })
    const x = kernels.tensor(400, 400)
    kernels.multiply(kernels.tensor(400, 400), x, x)
    console.log(kernels.variant)`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 20_000,
  })
  expect(run.stderr).toBe('')
  expect(run.stdout).toBe('strict SIMD, 3 threads\n')
  expect(run.status).toBe(0)
})

it('chooses the build and says which', async () => {
  for (const [options, variant, strict] of [
    [{ threads: 1 }, 'strict SIMD, 1 thread', true],
    [{ threads: 2, strict: false, relaxed: false }, 'strict SIMD, 2 threads', true],
    [{ threads: 1, strict: false }, hasRelaxedSimd() ? 'relaxed SIMD, 1 thread' : '', false],
  ] as const) {
    const kernels = await cpu(options)
    if (variant) expect(kernels.variant).toBe(variant)
    if (variant) expect(kernels.strict).toBe(strict)
    kernels.dispose()
  }
})

it('refuses options that mean nothing', async () => {
  for (const options of [{ threads: 0 }, { threads: 1.5 }, { memoryLimit: 1 }]) {
    await expect(cpu(options)).rejects.toMatchObject({ code: 'bad-option' })
  }
})

it('uses one thread where memory cannot be shared', async () => {
  const kept = globalThis.SharedArrayBuffer
  try {
    Reflect.deleteProperty(globalThis, 'SharedArrayBuffer')
    const kernels = await cpu({ threads: 4 })
    expect(kernels.variant).toBe('strict SIMD, 1 thread')
    kernels.dispose()
  } finally {
    globalThis.SharedArrayBuffer = kept
  }
})
