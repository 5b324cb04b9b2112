/** Stopped at any moment, the same command goes on and ends with the same bytes. */

import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { errorOf, runCli, runJson, temporaryFolder } from '../testing/run-cli.ts'

const JOB = ['quantize', 'demo', '--bits', '3', '--samples', '2', '--length', '64', '--search', '4']

const hash = (folder: string, name = 'model.safetensors'): string =>
  createHash('sha256')
    .update(readFileSync(path.join(folder, name)))
    .digest('hex')

const workplace = mkdtempSync(path.join(os.tmpdir(), 'lowbit-whole-'))
const whole = path.join(workplace, 'whole')

beforeAll(async () => {
  const { code } = await runJson([...JOB, '--threads', '1', '--out', whole])
  expect(code).toBe(0)
})

afterAll(() => rmSync(workplace, { recursive: true, force: true }))

/** Kills without mercy when `when` says so; gives whether it came to that. */
async function killWhen(
  out: string,
  when: (stderr: string, partial: readonly string[]) => boolean,
  signal: NodeJS.Signals = 'SIGKILL',
) {
  let stderr = ''
  let killed = false
  const result = await runCli([...JOB, '--threads', '2', '--out', out], {
    onStderr: (text) => {
      stderr = text
    },
    onStart: (child: ChildProcess) => {
      const timer = setInterval(() => {
        const partial = existsSync(`${out}.partial`) ? readdirSync(`${out}.partial`) : []
        if (killed || !when(stderr, partial)) return
        killed = true
        child.kill(signal)
      }, 1)
      child.on('close', () => clearInterval(timer))
    },
  })
  return { ...result, killed }
}

it('kill −9 in several phases, then the same bytes', async () => {
  const out = path.join(temporaryFolder(), 'out')
  const phases = [
    (stderr: string) => stderr.includes('block 0,'),
    (stderr: string) => stderr.includes('block 3,'),
    (_: string, partial: readonly string[]) => partial.some((name) => name.startsWith('rest.part')),
    (_: string, partial: readonly string[]) =>
      partial.some((name) => name.startsWith('model.safetensors')),
  ]
  let kills = 0
  for (const phase of phases) {
    const { killed, code } = await killWhen(out, phase)
    if (code === 0) break
    expect(killed).toBe(true)
    expect(existsSync(out)).toBe(false)
    kills++
  }
  expect(kills).toBeGreaterThanOrEqual(2)
  if (!existsSync(out)) {
    const { code, json } = await runJson([...JOB, '--out', out])
    expect(code).toBe(0)
    expect(json.resumed).toBe(true)
    expect(json.layers).toHaveLength(42)
  }
  expect(hash(out)).toBe(hash(whole))
  expect(hash(out, 'config.json')).toBe(hash(whole, 'config.json'))
  expect(hash(out, 'quantization-report.json')).toBe(hash(whole, 'quantization-report.json'))
  expect(readdirSync(out).sort()).toEqual(readdirSync(whole).sort())
  expect(readdirSync(path.dirname(out))).toEqual(['out'])
})

it('Ctrl-C leaves no final name, says what to do, and ends with 130', async () => {
  const out = path.join(temporaryFolder(), 'out')
  const stopped = await killWhen(out, (stderr) => stderr.includes('block 1,'), 'SIGINT')
  expect(stopped.code).toBe(130)
  expect(stopped.stderr).toMatch(/the same command goes on where this one stopped/)
  expect(existsSync(out)).toBe(false)
  expect(readdirSync(path.dirname(out))).toEqual(['out.partial'])

  // Work of another job is neither mixed in nor thrown away unasked.
  expect(await errorOf([...JOB, '--seed', '9', '--out', out])).toMatchObject({ code: 'other-job' })
  const { code, stderr } = await runCli([...JOB, '--out', out])
  expect(code).toBe(0)
  expect(stderr).toMatch(/going on with earlier work: \d of 7 parts/)
  expect(hash(out)).toBe(hash(whole))
})

it('work that was whole but for its name is published', async () => {
  const folder = temporaryFolder()
  const out = path.join(folder, 'out')
  const first = await runJson([...JOB, '--out', out])
  expect(first.code).toBe(0)
  const { renameSync } = await import('node:fs')
  renameSync(out, `${out}.partial`)
  const second = await runJson([...JOB, '--out', out])
  expect(second.json).toMatchObject({ resumed: true, bitsPerWeight: first.json.bitsPerWeight })
  expect(hash(out)).toBe(hash(whole))
})

it('one process at a time', async () => {
  const out = path.join(temporaryFolder(), 'out')
  const owner = { pid: process.pid, host: os.hostname() }
  writeFileSync(`${out}.partial.lock`, JSON.stringify(owner))
  expect(await errorOf([...JOB, '--out', out])).toMatchObject({
    code: 'busy',
    message: expect.stringContaining(String(process.pid)),
  })
})
