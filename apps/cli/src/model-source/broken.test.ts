/** Checkpoints that something is wrong with: an error with file and tensor in it, and no output. */

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { copyDemo, poison } from '../testing/demo-copy.ts'
import { errorOf, runJson, temporaryFolder } from '../testing/run-cli.ts'

function broken(): { model: string; weights: string; out: string } {
  const folder = temporaryFolder()
  const model = copyDemo(path.join(folder, 'model'))
  return { model, weights: path.join(model, 'model.safetensors'), out: path.join(folder, 'out') }
}

for (const [name, half] of [
  ['NaN', 0x7e00],
  ['infinite', 0x7c00],
] as const) {
  it(`a weight that is ${name}`, async () => {
    const { model, weights, out } = broken()
    const tensor = 'model.layers.1.mlp.up_proj.weight'
    poison(weights, tensor, half)
    const words = ['quantize', model, '--method', 'rtn', '--out', out]
    expect(await errorOf(words)).toMatchObject({ tensor, message: expect.stringContaining(tensor) })
    expect(existsSync(out)).toBe(false)
  })
}

it('a truncated file', async () => {
  const { model, weights, out } = broken()
  writeFileSync(weights, readFileSync(weights).subarray(0, 5_000_000))
  for (const words of [
    ['quantize', model, '--method', 'rtn', '--out', out],
    ['eval', model, '--windows', '1'],
    ['inspect', model],
  ]) {
    expect(await errorOf(words)).toMatchObject({
      code: 'truncated',
      file: expect.stringContaining('model.safetensors'),
    })
  }
  expect(existsSync(out)).toBe(false)
})

it('a missing shard', async () => {
  const { model, out } = broken()
  const sharded = path.join(path.dirname(model), 'sharded')
  const made = await runJson([
    'quantize',
    model,
    '--method',
    'rtn',
    '--max-shard-size',
    '1MB',
    '--out',
    sharded,
  ])
  expect(made.code).toBe(0)
  const shards = readdirSync(sharded).filter((name) => /of-\d+\.safetensors$/.test(name))
  expect(shards.length).toBeGreaterThan(1)
  rmSync(path.join(sharded, shards[1]))
  const error = await errorOf(['convert', sharded, '--to', 'dense', '--out', out])
  expect(error.message).toContain(shards[1])
  expect(existsSync(out)).toBe(false)
})

it('a config that is missing, no JSON, or of an unknown family', async () => {
  const { model } = broken()
  const config = path.join(model, 'config.json')
  const good = readFileSync(config, 'utf8')
  writeFileSync(config, good.replace('"llama"', '"mamba"'))
  expect(await errorOf(['eval', model])).toMatchObject({ code: 'unknown-architecture' })
  writeFileSync(config, '{')
  expect(await errorOf(['inspect', model])).toMatchObject({ code: 'bad-file', file: config })
  rmSync(config)
  expect(await errorOf(['inspect', model])).toMatchObject({ code: 'missing-file' })
})

it('a full disk', async ({ skip }) => {
  const { model } = broken()
  const disk = path.join(temporaryFolder(), 'disk')
  mkdirSync(disk)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk])
  if (mounted.status !== 0) return skip('a small file system can not be mounted here')
  onTestFinished(() => {
    spawnSync('umount', [disk])
  })
  const out = path.join(disk, 'out')
  const words = ['quantize', model, '--method', 'rtn', '--bits', '8', '--out', out]
  const error = await errorOf(words)
  expect(error).toMatchObject({ code: 'disk-full', file: expect.stringContaining('out.partial') })
  expect(existsSync(out)).toBe(false)
  const left = readdirSync(`${out}.partial`)
  expect(left.filter((name) => name.endsWith('.writing'))).toEqual([])

  // With room again the same command goes on.
  spawnSync('mount', ['-o', 'remount,size=40m', disk])
  const { code, json } = await runJson(words)
  expect(code).toBe(0)
  expect(json.resumed).toBe(true)
})
