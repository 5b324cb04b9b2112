/** The commands that read a model, on the demo and on one small quantized copy of it. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { QUANTIZERS } from '../plugins.ts'
import { errorOf, type Json, runCli, runJson, temporaryFolder } from '../testing/run-cli.ts'

const folder = mkdtempSync(path.join(os.tmpdir(), 'lowbit-commands-'))
const small = path.join(folder, 'small')

beforeAll(async () => {
  const words = ['quantize', 'demo', '--method', 'rtn', '--bits', '4', '--out', small]
  const { code } = await runJson(words)
  expect(code).toBe(0)
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('eval', () => {
  it('measures the demo on its own text', async () => {
    const { code, json } = await runJson(['eval', 'demo', '--context', '64', '--windows', '4'])
    expect(code).toBe(0)
    expect(json).toMatchObject({ model: 'demo', tokens: 4 * 63, windows: 4, context: 64 })
    expect(json.bitsPerWeight).toBe(16)
    expect(json.perplexity).toBeGreaterThan(5)
    expect(json.perplexity).toBeLessThan(100)
    expect(json.kl).toBeUndefined()
  })

  it('measures the divergence from a reference; a model is no distance from itself', async () => {
    const words = ['--context', '64', '--windows', '2', '--reference', 'demo']
    const [own, quantized] = await Promise.all([
      runJson(['eval', 'demo', ...words]),
      runJson(['eval', small, ...words]),
    ])
    expect(own.json.kl).toBeCloseTo(0, 6)
    expect(own.json.perplexity).toBe(own.json.referencePerplexity)
    expect(quantized.json.kl).toBeGreaterThan(0.001)
    expect(quantized.json.kl).toBeLessThan(0.2)
    expect(quantized.json.referencePerplexity).toBe(own.json.perplexity)
    expect(quantized.json.bitsPerWeight).toBeCloseTo(4.156, 2)
  })

  it('scores tasks', async () => {
    const task = path.join(temporaryFolder(), 'tiny.jsonl')
    const rows = [
      { query: 'And it came to', choices: ['pass', 'zebra'], gold: 0 },
      { query: 'In the beginning God created the', choices: ['zx', 'heaven'], gold: 1 },
    ]
    writeFileSync(task, rows.map((row) => JSON.stringify(row)).join('\n'))
    const { json } = await runJson(['eval', 'demo', '--tasks', task])
    expect(json.perplexity).toBeUndefined()
    expect(json.tasks).toEqual([{ task: 'tiny', items: 2, accuracy: 1, normalizedAccuracy: 1 }])
  })

  it('refuses windows that do not fit', async () => {
    expect(await errorOf(['eval', 'demo', '--context', '1024'])).toMatchObject({
      option: 'context',
    })
    const text = path.join(temporaryFolder(), 'short.txt')
    writeFileSync(text, 'And it came to pass')
    expect(await errorOf(['eval', 'demo', '--text', text])).toMatchObject({
      code: 'text-too-short',
    })
  })
})

describe('generate', () => {
  const greedy = ', that when the people saw it, they said'

  it('continues a prompt as transformers does', async () => {
    const { json } = await runJson(['generate', 'demo', 'And it came to pass', '-n', '10'])
    expect(greedy.startsWith(json.text as string)).toBe(true)
    expect(json).toMatchObject({ tokens: 10, reason: 'length' })
    for (const speed of ['tokensPerSecond', 'prefillTokensPerSecond']) {
      expect(json[speed]).toBeGreaterThan(0)
    }
  })

  it('takes the prompt as a flag or from standard input; text on one stream, speed on the other', async () => {
    const words = ['generate', 'demo', '--max-tokens', '10', '--activations', 'f32']
    const [flag, piped] = await Promise.all([
      runCli([...words, '--prompt', 'And it came to pass']),
      runCli(words, { input: 'And it came to pass\n' }),
    ])
    expect(greedy.startsWith(flag.stdout.trimEnd())).toBe(true)
    expect(piped.stdout).toBe(flag.stdout)
    expect(flag.stderr).toMatch(/^10 tokens at [\d.]+ tokens\/s, prompt of \d+ at \d+ tokens\/s\n$/)
  })

  it('samples by its seed', async () => {
    const words = ['generate', small, 'And', '-n', '8', '--temperature', '1', '--seed']
    const texts = await Promise.all(
      ['1', '1', '2'].map(async (seed) => (await runJson([...words, seed])).json.text),
    )
    expect(texts[0]).toBe(texts[1])
    expect(texts[0]).not.toBe(texts[2])
  })

  it('refuses an empty prompt, two prompts, and a template that is not there', async () => {
    expect(await errorOf(['generate', 'demo', ''])).toMatchObject({ option: 'prompt' })
    expect(await errorOf(['generate', 'demo', 'a', '-p', 'b'])).toMatchObject({ option: 'prompt' })
    expect(await errorOf(['generate', 'demo', 'a', '--chat'])).toMatchObject({
      code: 'no-template',
    })
  })
})

describe('convert and inspect', () => {
  it('counts a table that matrices share once, and says which ones do', async () => {
    const shared = path.join(folder, 'shared')
    const options = ['--vector-length', '2', '--centroids', '64', '--tables', 'checkpoint']
    const made = await runJson([
      ...['quantize', 'demo', '--method', 'vptq', ...options],
      ...['--samples', '1', '--length', '64', '--out', shared],
    ])
    expect(made.code).toBe(0)
    const { json } = await runJson(['inspect', shared])
    expect(json.bitsPerWeight).toBeCloseTo(made.json.bitsPerWeight as number, 10)
    const tables = json.sharedTables as { name: string; bytes: number; matrices: string[] }[]
    const tensors = json.tensors as { module: string; bytes: number; sharedTables?: string[] }[]
    expect(tables.length).toBeGreaterThan(0)
    expect(tables.every(({ bytes }) => bytes > 0)).toBe(true)
    for (const { name, matrices } of tables) {
      const referring = tensors.filter((tensor) => tensor.sharedTables?.includes(name))
      expect(referring.map(({ module }) => module)).toEqual(matrices)
      expect(matrices.length).toBeGreaterThan(1)
    }
    const parts = Object.values(json.parts as Record<string, number>)
    const sum = (sizes: readonly number[]) => sizes.reduce((all, size) => all + size, 0)
    const listed = [...tensors, ...tables].map(({ bytes }) => bytes)
    expect(sum(listed)).toBeCloseTo(sum(parts), 6)
  })

  it('goes to gptq and back to dense', async () => {
    const [gptq, dense] = [path.join(folder, 'gptq'), path.join(folder, 'dense')]
    const first = await runJson(['convert', small, '--to', 'gptq', '--out', gptq])
    expect(first.json).toMatchObject({ from: 'lowbit', to: 'gptq' })
    const second = await runJson([
      'convert',
      gptq,
      '--to',
      'dense',
      '--dtype',
      'f32',
      '--out',
      dense,
    ])
    expect(second.json).toMatchObject({ from: 'gptq', to: 'dense' })
    const [a, b, c] = await Promise.all(
      [small, gptq, dense].map(async (model) => (await runJson(['inspect', model])).json),
    )
    expect([a.format, b.format, c.format]).toEqual(['lowbit', 'gptq', 'dense'])
    expect(b.bitsPerWeight).toBeCloseTo(a.bitsPerWeight as number, 10)
    expect(c.bitsPerWeight).toBe(32)
    expect(await errorOf(['convert', small, '--to', 'dense', '--out', dense])).toMatchObject({
      code: 'exists',
    })
  })

  it('counts everything that is in a model', async () => {
    const { json } = await runJson(['inspect', small])
    expect(json).toMatchObject({ format: 'lowbit', architecture: 'llama', layers: 6 })
    expect(json.parameters).toBe(5_246_208)
    const parts = json.parts as Record<string, number>
    expect(Object.keys(parts).sort()).toEqual(['codes', 'dense', 'scales', 'vectors', 'zeros'])
    const tensors = json.tensors as Json[]
    expect(tensors).toHaveLength(43 + 13)
    expect(tensors.find(({ module }) => module === 'model.layers.0.mlp.up_proj')).toMatchObject({
      shape: [768, 256],
      kind: 'quantized',
      description: 'int4, groups of 128, f16 scales, zero points',
      method: 'rtn',
      errorOf: 'weight',
    })
    const embedding = tensors.find(({ module }) => module === 'model.embed_tokens')
    expect(embedding).toMatchObject({ kind: 'dense' })
    expect(embedding).not.toHaveProperty('method')
    expect(json.sharedTables).toEqual([])
    const report = JSON.parse(
      readFileSync(path.join(small, 'quantization-report.json'), 'utf8'),
    ) as {
      modules: Json[]
    }
    for (const { module, bits, error } of report.modules) {
      expect(tensors.find((tensor) => tensor.module === module)).toMatchObject({ bits, error })
    }
    const text = await runCli(['inspect', small])
    expect(text.stdout).toMatch(/model\.layers\.\*\.mlp\.up_proj +6 × +768 × 256/)
  })
})

it('methods lists every plugin and what goes with what', async () => {
  const { json } = await runJson(['methods'])
  const methods = json.methods as { name: string; options: Json[] }[]
  expect(methods.map(({ name }) => name).sort()).toEqual(QUANTIZERS.map(({ name }) => name).sort())
  expect(methods[0].options.length).toBeGreaterThan(5)
  const matrix = json.matrix as { method: string; grid: string; formats: Json; devices: Json }[]
  const row = (grid: string) => matrix.find((one) => one.method === 'rtn' && one.grid === grid)
  expect(row('int4')?.formats).toEqual({ lowbit: null, gptq: null, gptq_v2: null, dense: null })
  expect(row('nf4')?.formats.gptq).toEqual(expect.any(String))
  expect(matrix.every(({ devices }) => devices.cpu === true)).toBe(true)
  const markdown = await runCli(['methods', '--markdown'])
  expect(markdown.stdout).toMatch(/^\| method \| grids \| devices \| formats \|\n\| --- /)
})

it('doctor finds this machine in order', async () => {
  const { code, json } = await runJson(['doctor', '--threads', '1'])
  expect(code).toBe(0)
  expect(json).toMatchObject({ healthy: true, features: { simd: true } })
  expect((json.checks as Json[]).every(({ ok }) => ok)).toBe(true)
  expect((json.speed as Json).gflops).toBeGreaterThan(0)
})

it.each([
  ['doctor', ['doctor']],
  ['eval', ['eval', 'demo']],
  ['generate', ['generate', 'demo', 'In the beginning']],
  ['quantize', ['quantize', 'demo', '--method', 'rtn', '--out', path.join(folder, 'none')]],
])('%s --device cuda says in one line that there is no driver', async (_, words) => {
  const env = { LOWBIT_CUDA_LIBRARY: 'libcuda-of-nobody.so' }
  const { code, stdout, stderr } = await runCli([...words, '--device', 'cuda'], { env })
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(
    /^error: no NVIDIA driver here: libcuda-of-nobody\.so cannot be loaded\n$/m,
  )
})

it('start compares the original with two methods', async () => {
  const { code, json } = await runJson(['start', '--windows', '2', '--samples', '4'])
  expect(code).toBe(0)
  const models = json.models as { name: string; kl: number; bits: number }[]
  expect(models.map(({ name }) => name)).toEqual(['original', 'rtn', 'gptq'])
  expect(models[2].kl).toBeLessThan(models[1].kl)
})

describe('the program', () => {
  it('has help, a version, and commands that are looked up by name', async () => {
    const [help, version, unknown, none] = await Promise.all([
      runCli(['--help']),
      runCli(['--version']),
      runCli(['quantise', 'demo']),
      runCli([]),
    ])
    expect(help.code).toBe(0)
    for (const name of [
      'quantize',
      'eval',
      'generate',
      'convert',
      'inspect',
      'methods',
      'doctor',
    ]) {
      expect(help.stdout).toContain(`  ${name} `)
    }
    expect(help.stdout).not.toContain('  start')
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
    expect(unknown).toMatchObject({ code: 2, stdout: '' })
    expect(unknown.stderr).toMatch(/unknown command 'quantise'.*quantize/)
    expect(none.code).toBe(2)
  })

  it('refuses models that are not there', async () => {
    expect(await errorOf(['inspect', 'no-such-folder'])).toMatchObject({ code: 'not-found' })
    const empty = temporaryFolder()
    expect(await errorOf(['inspect', empty])).toMatchObject({ code: 'not-found', file: empty })
    expect(await errorOf(['eval', 'demo', '--text', 'no-such.txt'])).toMatchObject({
      code: 'file-error',
      file: 'no-such.txt',
    })
  })

  it('shows a stack only when asked', async () => {
    const words = ['inspect', 'no-such-folder']
    const [plain, debug] = await Promise.all([
      runCli(words),
      runCli(words, { env: { LOWBIT_DEBUG: '1' } }),
    ])
    expect(plain.stderr).not.toContain('    at ')
    expect(debug.stderr).toContain('    at ')
  })
})

describe('caches in few bits', () => {
  const options = ['--windows', '1', '--context', '128', '--cache-step', '16']

  it('eval measures them against the full one', async () => {
    const { json, code } = await runJson(['eval', 'demo', '--cache', 'int8', ...options])
    expect(code).toBe(0)
    expect(json).toMatchObject({ cache: 'int8', kl: expect.any(Number) })
    const { kl, perplexity, referencePerplexity } = json as Record<string, number>
    expect(kl).toBeLessThan(1e-3)
    expect(Math.abs(perplexity / referencePerplexity - 1)).toBeLessThan(2e-3)
  })

  it('generate goes on with them', async () => {
    const { json } = await runJson([
      'generate',
      'demo',
      'And it came',
      '-n',
      '4',
      '--cache',
      'kivi',
      '--cache-bits',
      '4',
    ])
    expect(json).toMatchObject({ cache: 'kivi', tokens: 4 })
  })

  it.each([
    [['--cache', 'int8', '--cache-bits', '2'], /int8 has no option bits/],
    [['--cache-bits', '2'], /belongs to a --cache other than full/],
    [['--cache', 'kivi', '--cache-bits', '5'], /one of 2, 3, 4, 8/],
  ])('refuses %j', async (flags, message) => {
    const { json, code } = await runJson(['eval', 'demo', ...flags])
    expect(code).not.toBe(0)
    expect((json as { error: { message: string } }).error.message).toMatch(message)
  })
})
