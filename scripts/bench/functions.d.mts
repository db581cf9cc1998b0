/** { function: { file: instructions } } */
export type Functions = Record<string, Record<string, number>>

export function ofARound(long: Functions, short: Functions, rounds: number): Functions
export function grown(was: Functions, is: Functions, most?: number): string[]
export function keptFunctions(): Record<string, Functions>
