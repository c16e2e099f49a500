#!/bin/sh
# A script of the shell: any program that prints its score will do. train.sh LEARNING_RATE SEED
set -e
awk -v lr="$1" -v seed="$2" 'BEGIN {
  srand(seed)
  weight = 2 * rand() - 1
  for (step = 1; step <= 100; step++) weight -= lr * 4 * weight * (weight * weight - 1)  # down into one of two valleys
  printf "weight: %.4f\naccuracy: %.4f\n", weight, 1 - (weight > 0 ? 0 : 0.4) - (weight * weight - 1) ^ 2
}'
