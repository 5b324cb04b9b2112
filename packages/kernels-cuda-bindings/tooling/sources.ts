/** What the sources say of their kernels: names, threads, and where the fields of their structs lie. */

import { createHash } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import type { CompiledKernel, Field, FieldType } from '../src/compiled.ts'

export const root = path.resolve(import.meta.dirname, '..')

/** The files that are compiled, each with what it includes: one module each. */
export const modules = (): string[] =>
  globSync('kernels/*.cu', { cwd: root })
    .map((file) => path.basename(file, '.cu'))
    .sort()

const text = (file: string): string => readFileSync(path.join(root, 'kernels', file), 'utf8')

/** A source and everything that it includes, in the order of reading. */
function withIncludes(file: string, seen = new Set<string>()): string[] {
  if (seen.has(file)) return []
  seen.add(file)
  const included = [...text(file).matchAll(/^#include "([^"]+\.cuh)"/gm)].map(([, name]) => name)
  return [...included.flatMap((name) => withIncludes(name, seen)), file]
}

export function hashOf(module: string): string {
  const hash = createHash('sha256')
  for (const file of withIncludes(`${module}.cu`)) hash.update(`${file}\0${text(file)}\0`)
  return hash.digest('hex')
}

interface Shape {
  readonly bytes: number
  readonly align: number
  readonly fields: readonly Field[]
}

const SIZES: Readonly<Record<FieldType, number>> = { pointer: 8, u32: 4, f32: 4, words: 4 }

/**
 * Structs of a source, as C lays them out: a struct inside another gives its fields to that one. Of a struct that a
 * kernel can't be given there is the reason.
 */
function structsOf(source: string): Map<string, Shape | string> {
  const known = new Map<string, Shape | string>()
  for (const [, name, body] of source.matchAll(/^struct (\w+) \{\n([\s\S]*?)^\};/gm)) {
    const lines = body.replace(/\/\*[\s\S]*?\*\//g, '').matchAll(/^ {2}([^;\n(]+);$/gm)
    known.set(
      name,
      shapeOf(
        name,
        [...lines].map(([, line]) => line),
        known,
      ),
    )
  }
  return known
}

function shapeOf(
  name: string,
  lines: readonly string[],
  known: ReadonlyMap<string, Shape | string>,
): Shape | string {
  const fields: Field[] = []
  let at = 0
  let align = 1
  for (const line of lines) {
    const [, type, pointer, field, room] =
      /^(?:const )?(\w+) (\*?)(\w+)(?:\[(\d+)\])?$/.exec(line) ?? []
    const inner = pointer ? undefined : known.get(type)
    if (typeof inner === 'string') return inner
    const number = type === 'u32' || type === 'f32' ? type : undefined
    const plain = pointer ? 'pointer' : room && type === 'u32' ? 'words' : number
    if (!inner && !plain) return `${name}: ${line} is no field that can be given`
    const each = inner ?? { bytes: SIZES[plain!] * Number(room ?? 1), align: SIZES[plain!] }
    at = Math.ceil(at / each.align) * each.align
    if (inner) for (const [n, t, offset] of inner.fields) fields.push([n, t, at + offset])
    else fields.push([field, plain!, at])
    at += each.bytes
    align = Math.max(align, each.align)
  }
  return { bytes: Math.ceil(at / align) * align, align, fields }
}

export function kernelsOf(module: string): Record<string, CompiledKernel> {
  const source = text(`${module}.cu`)
  const structs = structsOf(withIncludes(`${module}.cu`).map(text).join('\n'))
  const found: Record<string, CompiledKernel> = {}
  for (const [, name, params, threads] of source.matchAll(/^KERNEL\((\w+), (\w+), (\d+)\)/gm)) {
    const shape = structs.get(params)
    if (typeof shape === 'string') throw new Error(shape)
    if (!shape) throw new Error(`${name}: there is no struct ${params} in ${module}.cu`)
    const { bytes, fields } = shape
    found[name] = { module, threads: Number(threads), bytes, fields }
  }
  return found
}
