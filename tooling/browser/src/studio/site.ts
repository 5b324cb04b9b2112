/** The built studio as `lowbit studio` serves it, and as a static host without headers of its own would. */

import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { type Site, serve } from '../serve.ts'
import { temporaryFolder } from './temporary.ts'

const root = path.resolve(import.meta.dirname, '../../../..')
const cli = path.join(root, 'apps/cli/src/main.ts')
const studio = path.join(root, 'apps/studio')

export const PAGE = path.join(studio, 'dist')

export function buildStudio(): void {
  const vite = path.join(studio, 'node_modules/.bin/vite')
  execFileSync(vite, ['build', '--logLevel', 'warn'], { cwd: studio, stdio: 'inherit' })
}

/** Runs `lowbit studio`; gives the address that it prints. */
export async function serveStudio(folders: readonly string[] = []): Promise<Site> {
  const args = [cli, 'studio', ...folders, '--port', '0', '--no-open', '--json']
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const url = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
      if (text.trimEnd().endsWith('}')) resolve(JSON.parse(text).address)
    })
    child.on('exit', (code) => reject(new Error(`lowbit studio ended with ${code}`)))
  })
  return { url, close: () => void child.kill('SIGINT') }
}

export const serveStatic = (isolated: boolean): Promise<Site> => serve(PAGE, isolated)

/** `lowbit quantize` in Node; the folder lasts as long as the process. */
export function quantizeInNode(model: string, args: readonly string[]): string {
  const place = temporaryFolder('node')
  const out = path.join(place, 'model')
  execFileSync(process.execPath, [cli, 'quantize', model, ...args, '--out', out, '--json'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (!existsSync(path.join(out, 'config.json'))) throw new Error('nothing was quantized')
  return out
}

/** Perplexity in Node, as `lowbit eval` prints it. */
export function perplexityInNode(model: string, args: readonly string[]): number {
  const printed = execFileSync(process.execPath, [cli, 'eval', model, ...args, '--json'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return JSON.parse(printed).perplexity
}
