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

  it('a recipe says which one: on its own, and for the model that it made', async () => {
    const folder = temporaryFolder()
    const [recipe, made] = [path.join(folder, 'recipe.yaml'), path.join(folder, 'made')]
    writeFileSync(
      recipe,
      'rules: [{ method: rtn, bits: 8 }]\ncache: { scheme: kivi, bits: 4, window: 32 }\n',
    )
    const kivi4 = { cache: 'kivi', cacheOptions: { bits: 4, window: 32 } }
    const byFile = await runJson(['eval', 'demo', '--recipe', recipe, ...options])
    expect(byFile.json).toMatchObject(kivi4)
    expect((await runJson(['quantize', 'demo', '--recipe', recipe, '--out', made])).code).toBe(0)
    expect((await runJson(['eval', made, ...options])).json).toMatchObject(kivi4)
    const full = await runJson(['eval', made, '--cache', 'full', ...options])
    expect(full.json.cache).toBe('full')
    writeFileSync(recipe, 'rules: [{ method: rtn }]\ncache: { scheme: kivi, bits: 5 }\n')
    const bad = ['quantize', 'demo', '--recipe', recipe, '--out', `${made}2`]
    expect((await errorOf(bad)).message).toMatch(/one of 2, 3, 4, 8/)
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

  it('cq is fitted to a text first', async () => {
    const text = path.join(temporaryFolder(), 'text.txt')
    writeFileSync(
      text,
      'In the beginning was the word, and the word was with the people. '.repeat(30),
    )
    const cq = ['--cache', 'cq', '--cache-window', '16', '--cache-calibration', text]
    const { json, code } = await runJson(['eval', 'demo', ...cq, ...options])
    expect(code).toBe(0)
    const { codebooks } = json.cacheOptions as Record<string, string>
    expect(codebooks).toMatch(/^[0-9a-f]{64}$/)
    expect(json.kl).toBeGreaterThan(1e-6)
    const said = await runJson(['generate', 'demo', '-n', '4', 'Once upon a time', ...cq])
    expect(said).toMatchObject({ code: 0, json: { cache: 'cq', tokens: 4 } })
    const books = path.join(temporaryFolder(), 'books')
    const kept = ['--cache', 'cq', '--cache-window', '16', '--cache-codebooks', books]
    const first = await runJson(['eval', 'demo', ...kept, '--cache-calibration', text, ...options])
    expect(first.json.cacheOptions).toMatchObject({ codebooks })
    const before = readFileSync(books)
    const again = await runJson(['eval', 'demo', ...kept, ...options])
    expect(again.json.cacheOptions).toMatchObject({ codebooks })
    expect(readFileSync(books)).toEqual(before)
    expect(await errorOf(['eval', small, ...kept, ...options])).toMatchObject({
      ...{ code: 'bad-cache', message: expect.stringMatching(/fitted to another model/) },
    })
    const missing = ['eval', 'demo', '--cache', 'cq', '--cache-calibration', `${text}.not`]
    expect(await errorOf(missing)).toMatchObject({ code: 'file-error' })
  })

  it('are saved, and loaded for a prompt that begins alike', async () => {
    const file = path.join(temporaryFolder(), 'prompt.cache')
    const cache = ['--cache', 'int8', '--cache-window', '8', '-n', '6']
    const beginning = 'And it came to pass in the days of the king, that the people'
    const saved = await runJson(['generate', 'demo', beginning, ...cache, '--cache-save', file])
    expect(saved).toMatchObject({ code: 0, json: { reusedTokens: 0 } })
    const longer = `${beginning}${saved.json.text as string}`
    const words = ['generate', 'demo', longer, ...cache]
    const [plain, loaded] = [await runJson(words), await runJson([...words, '--cache-load', file])]
    expect(loaded.json.text).toBe(plain.json.text)
    const { reusedTokens, promptTokens } = loaded.json as Record<string, number>
    expect(reusedTokens).toBeGreaterThan(promptTokens - 3)
    const wrong: readonly [string[], RegExp][] = [
      [['generate', small, longer, ...cache, '--cache-load', file], /another model/],
      [['generate', 'demo', longer, '--cache', 'int4', '--cache-load', file], /cache of int8/],
      [['generate', 'demo', longer, '--cache-load', file], /cache of int8 .* not of full/],
    ]
    for (const [bad, message] of wrong) {
      expect(await errorOf(bad)).toMatchObject({
        ...{ code: 'bad-cache', file },
        message: expect.stringMatching(message),
      })
    }
    writeFileSync(file, readFileSync(file).subarray(0, 5000))
    expect(await errorOf([...words, '--cache-load', file])).toMatchObject({ code: 'bad-cache' })
  })

  it.each([
    [['--cache', 'int8', '--cache-bits', '2'], /int8 has no option bits/],
    [['--cache-bits', '2'], /belongs to a --cache other than full/],
    [['--cache', 'kivi', '--cache-bits', '5'], /one of 2, 3, 4, 8/],
    [['--cache', 'cq', '--cache-bits', '3'], /bits/],
    [['--cache', 'kivi', '--cache-window', '4000'], /longer than the model's context of 512/],
    [['--cache', 'int4', '--cache-group', '24'], /groups of 24 do not divide heads/],
  ])('refuses %j', async (flags, message) => {
    const { json, code } = await runJson(['eval', 'demo', ...flags])
    expect(code).not.toBe(0)
    expect((json as { error: { message: string } }).error.message).toMatch(message)
  })
})

describe('cost', () => {
  it('predicts memory and speed on devices that are data', async () => {
    const { json, code } = await runJson([
      ...['cost', small, '--device', 'a100', '--context', '100', '--context', '400'],
      ...['--cache', 'int4', '--cache-window', '0'],
    ])
    expect(code).toBe(0)
    const forecasts = json.forecasts as Json[]
    expect(forecasts.map(({ arithmetic, context }) => [arithmetic, context])).toEqual([
      ['weights', 100],
      ['weights', 400],
      ['activations', 100],
      ['activations', 400],
    ])
    const [near, far] = forecasts as unknown as { tokensPerSecond: number; cacheBytes: number }[]
    expect(far.tokensPerSecond).toBeLessThan(near.tokensPerSecond)
    expect(far.cacheBytes).toBeGreaterThan(near.cacheBytes)
    expect(json.weightBytes).toBeLessThan(5_246_208 * 2)
  })

  it('counts what a recipe would make as what it makes', async () => {
    const recipe = path.join(temporaryFolder(), 'recipe.yaml')
    writeFileSync(recipe, 'rules: [{ method: rtn, bits: 4 }]\ncache: { scheme: int8 }\n')
    const words = ['--device', 'rtx4090', '--context', '256']
    const [planned, made] = await Promise.all([
      runJson(['cost', 'demo', '--recipe', recipe, ...words]),
      runJson(['cost', small, '--cache', 'int8', ...words]),
    ])
    expect(planned.json.cache).toBe('int8')
    expect(planned.json.forecasts).toEqual(made.json.forecasts)
  })

  it('holds its forecast against this machine', async () => {
    const words = ['cost', small, '--measure', '--context', '64', '--threads', '1']
    const { json } = await runJson(words)
    type Row = { measured: Record<string, number>; achieved: { products: object } }
    for (const { measured, achieved } of json.forecasts as unknown as Row[]) {
      expect(measured.tokensPerSecond).toBeGreaterThan(0)
      expect(measured.error).toBeGreaterThan(-1)
      expect(Object.keys(achieved.products)).toContainEqual(expect.stringMatching(/^int4/))
    }
    const { stdout } = await runCli(words.map((word) => (word === small ? 'demo' : word)))
    expect(stdout).toMatch(/measured +off/)
  })

  it('takes a device from a file, and refuses what is none', async () => {
    const file = path.join(temporaryFolder(), 'own.json')
    const own = { memoryBytes: 1e6, bytesPerSecond: 1e9, busBytesPerSecond: 1e9 }
    const words = ['cost', 'demo', '--context', '10', '--device', file]
    writeFileSync(file, JSON.stringify({ ...own, flops: { f32: 1e9, f16: 1e9, int8: 1e9 } }))
    expect((await runJson(words)).json.forecasts).toMatchObject([{ fits: false }])
    writeFileSync(file, JSON.stringify(own))
    expect(await errorOf(words)).toMatchObject({ option: 'device' })
    expect(await errorOf(['cost', 'demo', '--device', 'abacus'])).toMatchObject({
      ...{ option: 'device', message: expect.stringMatching(/there are cpu, webgpu, cuda, a100/) },
    })
    expect(await errorOf(['cost', 'demo', '--device', 'h100', '--measure'])).toMatchObject({
      option: 'measure',
    })
    expect(await errorOf(['cost', 'demo', '--context', '512'])).toMatchObject({ option: 'context' })
  })
})
