import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { errorOf, type Json, runCli, runJson, temporaryFolder } from '../testing/run-cli.ts'

/** As little as gives a whole model. */
const QUICK = ['--samples', '1', '--length', '64', '--search', '2']

describe('quantize', () => {
  it('makes a folder and says what it did in one JSON object', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const { code, json } = await runJson(
      ['quantize', 'demo', '--bits', '3', '--group-size', '64', '--out', out].concat(QUICK),
    )
    expect(code).toBe(0)
    expect(json).toMatchObject({
      model: 'demo',
      out,
      method: 'gptq',
      format: 'lowbit',
      calibrationTokens: 64,
      resumed: false,
    })
    // 3 bits, and for each 64 of them an f16 scale and a zero point.
    expect(json.bitsPerWeight).toBeCloseTo(3 + (16 + 3) / 64, 10)
    const { seconds, cpuSeconds, peakMemoryBytes, bytes, sourceBytes } = json as Record<
      string,
      number
    >
    for (const figure of [seconds, cpuSeconds]) expect(figure).toBeGreaterThan(0)
    expect(peakMemoryBytes).toBeGreaterThan(10e6)
    expect(bytes / sourceBytes).toBeLessThan(0.35)
    const layers = json.layers as Json[]
    expect(layers).toHaveLength(42)
    expect(layers[0]).toMatchObject({
      module: 'model.layers.0.self_attn.q_proj',
      method: 'gptq',
      errorOf: 'output',
      rows: 256,
      columns: 256,
    })
    for (const layer of layers) {
      expect(layer.error).toBeGreaterThan(0)
      expect(layer.error).toBeLessThan(0.2)
      expect(layer.seconds).toBeGreaterThan(0)
    }
    expect(readdirSync(path.dirname(out))).toEqual(['out'])
    expect(readdirSync(out)).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']),
    )
  })

  it('prints tables for people, a line for each block on standard error', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const words = ['quantize', 'demo', '--method', 'rtn', '--grid', 'nf4', '--out', out]
    const { code, stdout, stderr } = await runCli(words)
    expect(code).toBe(0)
    expect(stdout).toMatch(/block +bits +q +k +v +o +gate +up +down +time/)
    expect(stdout).toMatch(/bits per weight +4\.25/)
    expect(stdout).toMatch(/mean weight error +0\.\d+ %/)
    expect(stderr.trim().split('\n')).toHaveLength(6)
    expect(stderr).toMatch(/block 5, mean error/)
  })

  it('sensitive palettes: gradients are measured on the way', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const words = [
      'quantize',
      'demo',
      '--method',
      'palettize',
      '--bits',
      '3',
      '--mode',
      'sensitive',
    ]
    const { code, json } = await runJson([
      ...words,
      '--samples',
      '1',
      '--length',
      '64',
      '--out',
      out,
    ])
    expect(code).toBe(0)
    expect(json).toMatchObject({ method: 'palettize', calibrationTokens: 64 })
    expect(json.layers).toHaveLength(42)
    expect(readdirSync(out).filter((name) => name.includes('part'))).toEqual([])
  })

  it('palettes: fewer flags, counted tables, and a warning where outputs are lost', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const few = ['--samples', '1', '--json', '--out', out]
    const fine = ['quantize', 'demo', '--method', 'palettize', '--bits', '3', ...few]
    const { code, stdout, stderr } = await runCli(fine)
    expect(code).toBe(0)
    const { bitsPerWeight, layers } = JSON.parse(stdout)
    // 3 bits and 8 values of f16 for each of 42 matrices.
    const weights = layers.reduce(
      (sum: number, l: Json) => sum + Number(l.rows) * Number(l.columns),
      0,
    )
    expect(bitsPerWeight).toBeCloseTo(3 + (42 * 8 * 16) / weights, 9)
    expect(stderr).not.toMatch(/ruin/)
    const rough = ['quantize', 'demo', '--method', 'palettize', '--bits', '1', '--mode', 'uniform']
    const lost = await runCli([...rough, ...few, '--overwrite'])
    expect(lost.code).toBe(0)
    expect(lost.stderr).toMatch(
      /mlp.*_proj loses \d+.* of its output's power.*more bits.*--outliers/,
    )
  })

  it('follows a recipe, and puts what it says beside other flags', async () => {
    const folder = temporaryFolder()
    const recipe = path.join(folder, 'r.yaml')
    writeFileSync(
      recipe,
      `rules:
  - {match: 'model.layers.*.mlp.*', method: rtn, bits: 4}
  - {match: 'model.layers.0.**', method: none}
  - {method: rtn, grid: nf4}
format: gptq
`,
    )
    const out = path.join(folder, 'out')
    const { json } = await runJson([
      'quantize',
      'demo',
      '--recipe',
      recipe,
      '--format',
      'lowbit',
      '--out',
      out,
    ])
    expect(json.format).toBe('lowbit')
    const layers = json.layers as { module: string; label: string }[]
    expect(layers).toHaveLength(42 - 4)
    const down = layers.find(({ module }) => module === 'model.layers.0.mlp.down_proj')
    expect(down?.label).toContain('int4')
  })

  it('needs no calibration for rtn, splits files, writes gptq', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const { json, stderr } = await runJson(
      [
        'quantize',
        'demo',
        '--method',
        'rtn',
        '--format',
        'gptq',
        '--symmetric',
        '--out',
        out,
      ].concat(['--max-shard-size', '1MB', '--match', 'model.layers.*.mlp.*']),
    )
    expect(stderr).toBe('')
    expect(json).toMatchObject({ method: 'rtn', format: 'gptq', calibrationTokens: 0 })
    expect(json.layers).toHaveLength(18)
    expect(existsSync(path.join(out, 'model.safetensors.index.json'))).toBe(true)
    const config = JSON.parse(readFileSync(path.join(out, 'config.json'), 'utf8')) as Json
    expect(config.quantization_config).toMatchObject({ quant_method: 'gptq', bits: 4, sym: true })
  })

  it('shows the flags of the method that is asked for', async () => {
    const [gptq, rtn] = await Promise.all([
      runCli(['quantize', '--help']),
      runCli(['quantize', '--method', 'rtn', '--help']),
    ])
    expect(gptq.code).toBe(0)
    expect(gptq.stdout).toContain('--search-weight')
    expect(rtn.stdout).not.toContain('--search-weight')
    expect(rtn.stdout).toContain('--group-size')
  })
})

describe('quantize refuses', () => {
  const out = path.join('no-such-folder-that-is-made', 'out')
  const quantize = (...words: string[]) => errorOf(['quantize', 'demo', '--out', out, ...words])

  it('an unknown method, and flags of another method', async () => {
    expect(await quantize('--method', 'gtpq')).toMatchObject({
      code: 'unknown-method',
      option: 'method',
      message: expect.stringContaining('gptq, vptq, gptvq, palettize, pq, rtn'),
    })
    expect(await quantize('--method', 'rtn', '--damping', '1')).toMatchObject({
      code: 'bad-usage',
      option: 'damping',
    })
  })

  it('an unknown flag, with the nearest one', async () => {
    const { code, stderr } = await runCli(['quantize', 'demo', '--out', out, '--bit', '3'])
    expect(code).toBe(2)
    expect(stderr).toMatch(/^error: unknown option '--bit'.*Did you mean --bits\?.*\n$/)
  })

  it('values out of range and options that contradict each other', async () => {
    expect(await quantize('--bits', '9')).toMatchObject({ option: 'bits' })
    expect(await quantize('--bits', 'three')).toMatchObject({ option: 'bits' })
    expect(await quantize('--granularity', 'channel', '--group-size', '64')).toMatchObject({
      code: 'bad-option',
      option: 'groupSize',
    })
    expect(await quantize('--grid', 'nf5')).toMatchObject({ option: 'grid' })
    expect(await quantize('--length', '4096')).toMatchObject({ option: 'length' })
  })

  it('method options beside a recipe, and a recipe that is none', async () => {
    const folder = temporaryFolder()
    const recipe = path.join(folder, 'r.yaml')
    writeFileSync(recipe, 'rules: [{method: rtn, bits: 4}]\n')
    expect(await quantize('--recipe', recipe, '--bits', '3')).toMatchObject({
      option: 'bits',
      message: expect.stringContaining('contradicts --recipe'),
    })
    writeFileSync(recipe, 'rules: {\n')
    expect(await quantize('--recipe', recipe)).toMatchObject({ code: 'bad-recipe', file: recipe })
    writeFileSync(recipe, 'rules: [{method: rtn, match: "nothing.*"}]\n')
    expect(await quantize('--recipe', recipe)).toMatchObject({ code: 'bad-recipe' })
    expect(await quantize('--recipe', path.join(folder, 'none.yaml'))).toMatchObject({
      code: 'file-error',
      option: 'recipe',
    })
  })

  it('texts that are empty, missing or no text', async () => {
    const folder = temporaryFolder()
    const empty = path.join(folder, 'empty.txt')
    writeFileSync(empty, '')
    expect(await quantize('--calibration', empty)).toMatchObject({
      code: 'text-too-short',
      option: 'calibration',
    })
    expect(await quantize('--calibration', path.join(folder, 'none.txt'))).toMatchObject({
      code: 'file-error',
      option: 'calibration',
    })
    const binary = path.join(folder, 'binary.txt')
    writeFileSync(binary, new Uint8Array([0xff, 0xfe, 0x80]))
    expect(await quantize('--calibration', binary)).toMatchObject({ code: 'bad-text' })
  })

  it('a format that can not hold the result, before the work', async () => {
    expect(await quantize('--grid', 'nf4', '--format', 'gptq')).toMatchObject({
      code: 'not-storable',
      option: 'format',
    })
  })

  it('leaves nothing behind', () => {
    const names = existsSync(path.dirname(out)) ? readdirSync(path.dirname(out)) : []
    expect(names).toEqual([])
  })

  it('an output with files, unless it may be replaced', async () => {
    const folder = temporaryFolder()
    const there = path.join(folder, 'out')
    mkdirSync(there)
    writeFileSync(path.join(there, 'mine.txt'), 'mine')
    const words = ['quantize', 'demo', '--method', 'rtn', '--out', there]
    expect(await errorOf(words)).toMatchObject({ code: 'exists', option: 'out', file: there })
    expect(readFileSync(path.join(there, 'mine.txt'), 'utf8')).toBe('mine')
    const { code } = await runJson([...words, '--overwrite'])
    expect(code).toBe(0)
    expect(existsSync(path.join(there, 'mine.txt'))).toBe(false)
    expect(readdirSync(folder)).toEqual(['out'])
  })

  it('an output that can not be written', async () => {
    const file = path.join(temporaryFolder(), 'file')
    writeFileSync(file, '')
    const words = ['quantize', 'demo', '--method', 'rtn', '--out', path.join(file, 'out')]
    expect(await errorOf(words)).toMatchObject({ code: 'file-error', option: 'out' })
  })
})

it('calibrates on three tokens, and says that they are few', async () => {
  const folder = temporaryFolder()
  const text = path.join(folder, 'short.txt')
  writeFileSync(text, 'And it came')
  const out = path.join(folder, 'out')
  const { code, json, stderr } = await runJson([
    'quantize',
    'demo',
    '--calibration',
    text,
    '--search',
    '2',
    '--out',
    out,
  ])
  expect(code).toBe(0)
  expect(json.calibrationTokens).toBe(3)
  expect(stderr).toMatch(/warning: the calibration text is short: one window of 3 tokens/)
})
