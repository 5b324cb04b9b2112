/** Runs the command as a user would, in a process of its own. */

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))

export interface CliResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  /** Called with all of standard error so far, and the process to act on. */
  readonly onStderr?: (text: string, child: ChildProcess) => void
  readonly onStart?: (child: ChildProcess) => void
}

const THREADED = ['quantize', 'eval', 'generate', 'start']

/** Tests run side by side, so each process gets one thread unless the test says otherwise. */
function withThreads(words: readonly string[]): readonly string[] {
  if (!THREADED.includes(words[0]) || words.includes('--threads')) return words
  return [words[0], '--threads', '1', ...words.slice(1)]
}

export function runCli(words: readonly string[], options: RunOptions = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [MAIN, ...withThreads(words)], {
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    options.onStderr?.(stderr, child)
  })
  child.stdin.on('error', () => {})
  child.stdin.end(options.input ?? '')
  options.onStart?.(child)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}

export type Json = Record<string, unknown>

/** Runs with `--json`; standard output must be one JSON object and nothing else. */
export async function runJson(
  words: readonly string[],
  options: RunOptions = {},
): Promise<CliResult & { json: Json }> {
  const result = await runCli([...words, '--json'], options)
  return { ...result, json: JSON.parse(result.stdout) as Json }
}

/** The `error` of a command that must fail. */
export async function errorOf(words: readonly string[]): Promise<Record<string, string>> {
  const { code, json, stderr } = await runJson(words)
  if (code === 0) throw new Error('it should have failed')
  if (!/^(warning: .*\n)*error: [^\n]+\n$/.test(stderr)) {
    throw new Error(`not one line: ${stderr}`)
  }
  return json.error as Record<string, string>
}

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'lowbit-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
